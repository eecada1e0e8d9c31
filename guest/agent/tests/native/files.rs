//! Files in and out.

use agent_client::{Activity, CopyError, Place, fetch, store};
use executor::{Fd, IoBuf, RecvFlags, SendFlags};
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

        let request =
            v1::WriteFileRequest { path: path.clone(), mode: 0o750, name: b"ignored".to_vec() };
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

#[test]
fn copies_go_by_name_and_say_what_went_wrong() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let folder = agent.path("folder");
        std::fs::create_dir(&folder).unwrap();
        let from = agent.path("from");
        let content: Vec<u8> = (0..300_001u32).map(|at| at as u8).collect();
        std::fs::write(&from, &content).unwrap();
        let open = || Fd::unregistered(std::fs::File::open(&from).unwrap()).unwrap();
        let place = |path: &std::path::Path| Place {
            path: path.as_os_str().as_encoded_bytes().to_vec(),
            name: b"name".to_vec(),
            mode: 0o600,
        };
        let stored = store(&session, &open(), place(&folder), &Activity::default()).await;
        assert_eq!(stored.unwrap(), content.len() as u64);
        assert!(std::fs::read(folder.join("name")).unwrap() == content);

        let made = folder.join("name").into_os_string().into_encoded_bytes();
        let incoming = fetch(&session, &made).await.unwrap();
        let to = agent.path("to");
        let sink = Fd::unregistered(std::fs::File::create(&to).unwrap()).unwrap();
        let activity = Activity::default();
        let fetched = incoming.copy_to(&session, &sink, &activity).await.unwrap();
        assert_eq!((fetched, activity.bytes()), (content.len() as u64, content.len() as u64));
        assert!(std::fs::read(&to).unwrap() == content);

        // The disk that is always full, which only the guest can tell.
        let full = std::path::Path::new("/dev/full");
        let refused = store(&session, &open(), place(full), &Activity::default()).await;
        assert!(matches!(refused, Err(CopyError::Call(_))), "{refused:?}");
    });
}
