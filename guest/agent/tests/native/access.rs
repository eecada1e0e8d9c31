//! Who is let in, and what strangers can do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use agent_client::{CallError, Session};
use proptest::prelude::*;
use proto::credentials::Secret;
use proto::v1;
use tonic::Code;

use crate::support::{Agent, on_executors, output, words};

#[test]
fn a_wrong_secret_is_refused_for_every_call() {
    on_executors(async || {
        let agent = Agent::start().await;
        let stranger = Session::open(&agent.guest, &Secret::new([1; 32])).await.unwrap();
        let refused = stranger.agent().info(v1::InfoRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        let request = v1::StartRequest { argv: vec![b"true".to_vec()], ..Default::default() };
        let refused = stranger.agent().start(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        let session = agent.session().await;
        let list = session.agent().list(v1::ListRequest {}).await.unwrap().into_inner();
        assert_eq!(list.processes, []);
    });
}

#[test]
fn a_ticket_is_good_once() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let refused = session.open_stream(&[7; 16]).await.unwrap_err();
        assert!(matches!(refused, CallError::Stream(_)), "{refused:?}");
        let pipes = v1::Pipes { stdout: true, ..Default::default() };
        let request = v1::StartRequest {
            argv: vec![b"cat".to_vec(), b"/dev/zero".to_vec()],
            stdio: Some(v1::start_request::Stdio::Pipes(pipes)),
            ..Default::default()
        };
        let reply = session.agent().start(request).await.unwrap().into_inner();
        let Some(v1::start_reply::Result::Started(started)) = reply.result else {
            panic!("{reply:?}");
        };
        let stream = session.open_stream(&started.stdout).await.unwrap();
        let refused = session.open_stream(&started.stdout).await.unwrap_err();
        assert!(matches!(refused, CallError::Stream(_)), "{refused:?}");
        drop(stream);
        // Nobody reads any more, and that is what it dies of.
        let reply = session.agent().wait(v1::WaitRequest { id: started.id }).await.unwrap();
        let status = reply.into_inner().status;
        assert_eq!(status, Some(v1::wait_reply::Status::Signaled(libc::SIGPIPE as u32)));
    });
}

#[test]
fn what_is_not_there_is_an_error() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let mut calls = session.agent();
        assert_eq!(calls.wait(v1::WaitRequest { id: 9 }).await.unwrap_err().code(), Code::NotFound);
        let signal = v1::SignalRequest { id: 9, number: 15, ..Default::default() };
        assert_eq!(calls.signal(signal).await.unwrap_err().code(), Code::NotFound);
        let empty = calls.start(v1::StartRequest::default()).await.unwrap_err();
        assert_eq!(empty.code(), Code::InvalidArgument);
        let variable = v1::Variable { name: b"A=B".to_vec(), value: Vec::new() };
        let wrong = v1::StartRequest {
            argv: vec![b"true".to_vec()],
            env: vec![variable],
            ..Default::default()
        };
        assert_eq!(calls.start(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

/// What a stranger may say to the agent's ports.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(b"CONNECT 8888\n".to_vec()),
        Just(b"CONNECT 8889\n".to_vec()),
        Just(b"CONNECT 8889\nVMS1".to_vec()),
        Just(b"CONNECT 8888\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        Just(b"CONNECT 1\n".to_vec()),
        Just(Vec::new()),
    ];
    (start, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(mut bytes, rest)| {
        bytes.extend(rest);
        bytes
    })
}

#[test]
fn noise_on_its_ports_does_not_disturb_the_agent() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let mut runner = proptest::test_runner::TestRunner::default();
        runner
            .run(&noise(), |bytes| {
                let mut stream = UnixStream::connect(agent.guest.path()).unwrap();
                // The agent may be faster to close than we are to write.
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
                Ok(())
            })
            .unwrap();
        assert_eq!(output(&session, words(&["echo", "alive"])).await.stdout, b"alive\n");
    });
}
