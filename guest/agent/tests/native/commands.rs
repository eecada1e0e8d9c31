//! Commands: streams, exit statuses, signals, terminals, surroundings.

use std::cell::Cell;
use std::future::pending;

use agent_client::{Ending, Event, HostStreams, Run, StartError, run};
use executor::Fd;
use proto::v1;

use crate::support::{Agent, on_executors, output, shell, with_input, words};

fn exited(status: u32) -> Run {
    Run::Ended(Ending::Exited(status))
}

#[test]
fn streams_are_apart_and_the_status_is_the_commands() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let done = output(&session, shell("echo out; echo err >&2; exit 7")).await;
        assert_eq!(done.run, exited(7));
        assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        let done = output(&session, shell("kill -9 $$")).await;
        assert_eq!(done.run, Run::Ended(Ending::Signaled(9)));
    });
}

#[test]
fn bytes_go_through_unchanged() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        // Every byte, in runs whose length has nothing to do with any buffer's.
        let input: Vec<u8> =
            (0..20_000_003u32).map(|at| (at ^ (at >> 8) ^ (at >> 17)) as u8).collect();
        let done = with_input(&session, words(&["cat"]), input.clone()).await;
        assert_eq!(done.run, exited(0));
        assert!(done.stdout == input, "{} bytes came back", done.stdout.len());
    });
}

#[test]
fn a_command_need_not_read_its_input() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let done = with_input(&session, words(&["true"]), vec![1; 10_000_000]).await;
        assert_eq!(done.run, exited(0));
    });
}

#[test]
fn what_cannot_start_says_why() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let text = agent.path("text");
        std::fs::write(&text, "no program").unwrap();
        let refused = async |command| match output(&session, command).await.run {
            Run::NotStarted(error) => error,
            Run::Ended(ending) => panic!("{ending:?}"),
        };
        let missing = refused(words(&["no-such-program"])).await;
        assert!(matches!(missing, StartError::NotFound(_)) && missing.status() == Some(127));
        let missing = refused(words(&["/no/such/program"])).await;
        assert_eq!(missing.status(), Some(127));
        let plain = refused(words(&[text.to_str().unwrap()])).await;
        assert!(matches!(plain, StartError::NotExecutable(_)) && plain.status() == Some(126));
        let mut nowhere = words(&["true"]);
        nowhere.cwd = b"/no/such/folder".to_vec();
        assert!(matches!(refused(nowhere).await, StartError::Other(_)));
        let mut nobody = words(&["true"]);
        nobody.user = "no-such-user".into();
        assert!(matches!(refused(nobody).await, StartError::Other(_)));
    });
}

#[test]
fn folder_and_environment_are_as_asked_for() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let mut command = shell("pwd; printf %s \"$GREETING\"");
        command.cwd = b"/proc/self".to_vec();
        command.env = vec![(b"GREETING".to_vec(), b"\xff\x01 hi".to_vec())];
        let done = output(&session, command).await;
        let (folder, greeting) = done.stdout.split_at(done.stdout.len() - 5);
        assert!(folder.starts_with(b"/proc/"), "{folder:?}");
        assert_eq!(greeting, b"\xff\x01 hi");
    });
}

#[test]
fn background_processes_do_not_keep_the_streams() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let done = output(&session, shell("sleep 1000 & echo $!; echo done")).await;
        assert_eq!(done.run, exited(0));
        let text = String::from_utf8(done.stdout).unwrap();
        let (pid, rest) = text.split_once('\n').unwrap();
        assert_eq!(rest, "done\n");
        output(&session, words(&["kill", pid])).await;
    });
}

#[test]
fn signals_reach_the_command() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        // It tells when its handler is in place, by its output.
        let (reader, writer) = std::io::pipe().unwrap();
        let (reader, writer) = (Fd::new(reader).unwrap(), Fd::new(writer).unwrap());
        let sent = Cell::new(false);
        let events = || async {
            if sent.replace(true) {
                return pending().await;
            }
            let (read, _) = reader.read(Vec::with_capacity(6)).await;
            assert_eq!(read.unwrap(), 6);
            Event::Signal(libc::SIGINT)
        };
        let host = HostStreams { stdout: Some(writer), ..HostStreams::default() };
        let script = shell("trap 'exit 3' INT; echo ready; while :; do sleep 0.01; done");
        assert_eq!(run(&session, script, host, events).await.unwrap(), exited(3));
    });
}

#[test]
fn a_terminal_has_a_size_and_an_end_of_input() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let mut command =
            shell("stty size; test -t 0 && test -t 1 && test -t 2 && echo terminal; cat");
        command.terminal = Some(v1::Terminal { rows: 33, columns: 99, term: "vt100".into() });
        let done = with_input(&session, command, b"typed\n".to_vec()).await;
        assert_eq!(done.run, exited(0));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.contains("33 99\r\n") && text.contains("terminal\r\n"), "{text:?}");
        // Once as the terminal's echo and once as the answer of cat.
        assert_eq!(text.matches("typed\r\n").count(), 2, "{text:?}");
    });
}

#[test]
fn a_user_is_a_name_or_a_number() {
    assert!(rustix::process::getuid().is_root(), "this test changes users, which takes root");
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        for (user, expected) in [("65534:12", "65534 12 12\n"), ("0", "0 0 0\n")] {
            let mut command = shell("echo $(id -u) $(id -g) $(id -G | cut -d' ' -f1)");
            command.user = user.into();
            command.cwd = b"/".to_vec();
            let done = output(&session, command).await;
            assert_eq!(String::from_utf8(done.stdout).unwrap(), expected);
        }
    });
}

#[test]
fn fifty_at_a_time_and_hundreds_in_a_row_leave_nothing() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        assert_eq!(output(&session, words(&["true"])).await.run, exited(0));
        let before = agent.descriptors();
        let many: Vec<_> = (0..50)
            .map(|number| {
                let session = session.clone();
                let script = shell(&format!("echo {number}; exit {number}"));
                executor::spawn(async move { output(&session, script).await })
            })
            .collect();
        for (number, task) in many.into_iter().enumerate() {
            let done = task.await;
            assert_eq!(done.run, exited(number as u32));
            assert_eq!(done.stdout, format!("{number}\n").as_bytes());
        }
        for _ in 0..200 {
            assert_eq!(output(&session, words(&["true"])).await.run, exited(0));
        }
        let list = session.agent().list(v1::ListRequest {}).await.unwrap().into_inner();
        assert_eq!(list.processes, []);
        assert_eq!(agent.descriptors(), before);
    });
}
