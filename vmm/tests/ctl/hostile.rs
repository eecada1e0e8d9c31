//! Clients that do not mean well. The machine goes on, and others are served.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::machine::{ENDLESS, Machine, has_kvm};

fn connect(machine: &Machine) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(machine.path("vm.sock")).expect("connects");
    let mut stream = BufReader::new(stream);
    let mut hello = String::new();
    stream.read_line(&mut hello).expect("a line");
    assert!(hello.starts_with(r#"{"protocol":1,"#), "{hello}");
    stream
}

fn answer(stream: &mut BufReader<UnixStream>, request: &[u8]) -> String {
    stream.get_mut().write_all(request).expect("it is sent");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line");
    line
}

#[test]
fn lines_that_are_no_requests_are_answered_and_long_ones_end_the_connection() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    let mut stream = connect(&machine);
    let deep = [&[b'['; 4000][..], b"\n"].concat();
    for line in [&b"\n"[..], b"{}\n", b"\xff\xfe\n", b"{\"do\":\"explode\"}\n", &deep] {
        let answer = answer(&mut stream, line);
        assert!(answer.starts_with(r#"{"error":{"message":"that is no request"#), "{answer}");
    }
    // Several at once are answered in turn; one in pieces is put together.
    let two = answer(&mut stream, b"{\"do\":\"pause\"}\n{\"do\":\"resume\"}\n");
    assert_eq!(
        (two.as_str(), answer(&mut stream, b"").as_str()),
        ("{\"ok\":\"done\"}\n", two.as_str())
    );
    stream.get_mut().write_all(b"{\"do\":").expect("it is sent");
    assert_eq!(answer(&mut stream, b"\"resume\"}\n"), "{\"ok\":\"done\"}\n");
    let long = answer(&mut stream, &[b'a'; 5000]);
    assert!(long.contains("at most 4096 bytes"), "{long}");
    let mut rest = String::new();
    // It may have been reset, because not all was read.
    let _ = stream.read_to_string(&mut rest);
    assert_eq!(rest, "");
    machine.done(&["status"]);
}

#[test]
fn clients_beyond_the_limit_are_turned_away_and_the_others_served() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    let mut silent: Vec<_> = (0..32).map(|_| connect(&machine)).collect();
    let said = machine.ctl(&["status"]);
    assert_eq!(said.status, Some(35));
    assert!(said.err.contains("32 clients are connected"), "{}", said.err);
    assert_eq!(answer(&mut silent[7], b"{\"do\":\"resume\"}\n"), "{\"ok\":\"done\"}\n");
    drop(silent);
    crate::machine::until("there is room again", || {
        (machine.ctl(&["status"]).status == Some(0)).then_some(())
    });
}

/// It asks for events and reads none, so that both the socket and its queue fill up.
#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    if !has_kvm() {
        return;
    }
    let mut machine = Machine::start(ENDLESS, &[]);
    let mut deaf = connect(&machine);
    assert_eq!(answer(&mut deaf, b"{\"do\":\"events\"}\n"), "{\"ok\":\"done\"}\n");
    let mut busy = connect(&machine);
    for _ in 0..200 {
        for request in [&b"{\"do\":\"pause\"}\n"[..], b"{\"do\":\"resume\"}\n"] {
            assert_eq!(answer(&mut busy, request), "{\"ok\":\"done\"}\n");
        }
    }
    machine.done(&["stop"]);
    assert_eq!(machine.wait(), Some(36));
}
