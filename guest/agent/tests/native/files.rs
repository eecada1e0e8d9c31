//! Files in and out.

use executor::{IoBuf, RecvFlags, SendFlags};
use proto::v1;
use tonic::Code;

use crate::support::{Agent, on_executors};

#[test]
fn a_file_goes_in_and_comes_out() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let path = agent.path("file").into_os_string().into_encoded_bytes();
        let content: Vec<u8> = (0..1_000_003u32).map(|at| (at ^ (at >> 9)) as u8).collect();

        let request = v1::WriteFileRequest { path: path.clone(), mode: 0o750 };
        let file = session.agent().write_file(request).await.unwrap().into_inner();
        let stream = session.open_stream(&file.stream).await.unwrap();
        let mut rest = content.clone();
        while !rest.is_empty() {
            let (sent, buffer) = stream.send(rest, SendFlags::NOSIGNAL).await;
            rest = buffer;
            rest.drain(..sent.unwrap());
        }
        drop(stream);
        let done = session.agent().finish_file(v1::FinishFileRequest { id: file.id }).await;
        assert_eq!(done.unwrap().into_inner().size, content.len() as u64);

        let file = session.agent().read_file(v1::ReadFileRequest { path }).await.unwrap();
        let file = file.into_inner();
        assert_eq!((file.size, file.mode), (content.len() as u64, 0o750));
        let stream = session.open_stream(&file.stream).await.unwrap();
        let mut read = Vec::with_capacity(content.len() + 1);
        loop {
            let filled = read.len();
            let (received, slice) = stream.recv(read.slice(filled..), RecvFlags::empty()).await;
            read = slice.into_inner();
            if received.unwrap() == 0 {
                break;
            }
        }
        assert!(read == content);
    });
}

#[test]
fn what_is_no_file_is_refused() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let read = async |path: &[u8]| {
            let request = v1::ReadFileRequest { path: path.to_vec() };
            session.agent().read_file(request).await.unwrap_err().code()
        };
        assert_eq!(read(b"/no/such/file").await, Code::NotFound);
        assert_eq!(read(b"/proc").await, Code::FailedPrecondition);
        assert_eq!(read(b"/dev/null").await, Code::FailedPrecondition);
    });
}
