//! Services, as far as the host hears of them.

use std::cell::RefCell;
use std::rc::Rc;

use agent_client::LogListener;
use executor::TaskGroup;
use proto::v1;

use crate::support::{Agent, on_executors};

/// What an agent logs of a service up to a line with certain words, without the numbers of processes.
async fn logged(description: &str, last: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("it.toml"), description).unwrap();
    let mut agent = Agent::with_services(Some(folder.path())).await;
    let lines: Rc<RefCell<Vec<String>>> = Rc::default();
    let (listener, secret) = (LogListener::bind(&agent.guest).unwrap(), agent.secret.clone());
    let tasks = TaskGroup::new();
    let kept = Rc::clone(&lines);
    tasks.spawn(async move {
        let take = move |batch: v1::LogBatch| {
            let text = |record: v1::LogRecord| String::from_utf8_lossy(&record.text).into_owned();
            let all = batch.records.into_iter().map(text).filter(|text| text.contains("it"));
            kept.borrow_mut().extend(all.filter_map(|text| as_said(&text)));
            Ok(())
        };
        listener.serve(&secret, take).await.unwrap();
    });
    let session = agent.session().await;
    while !lines.borrow().iter().any(|line| line.contains(last)) {
        session.agent().flush_logs(v1::FlushLogsRequest {}).await.unwrap();
    }
    session.agent().shutdown(v1::ShutdownRequest::default()).await.unwrap();
    assert!(agent.process.wait().unwrap().success());
    tasks.cancel_all().await;
    lines.take()
}

/// The kernel of the host logs, too.
fn as_said(text: &str) -> Option<String> {
    if let Some(of_agent) = text.strip_prefix("vmm-agent: ") {
        return Some(of_agent.into());
    }
    let (_, line) = text.strip_prefix("it[")?.split_once("]: ")?;
    Some(line.into())
}

#[test]
fn a_service_that_always_ends_is_given_up_in_time() {
    on_executors(async || {
        let service = "command = ['/bin/sh', '-c', 'echo out; echo err >&2; printf tail; exit 3']";
        let lines = logged(service, "not started again").await;
        let count = |what: &str| lines.iter().filter(|line| *line == what).count();
        assert_eq!((count("out"), count("err"), count("tail")), (10, 10, 10), "{lines:?}");
        assert_eq!(count("it has ended with status 3"), 9);
    });
}

#[test]
fn what_ended_well_is_left_alone_if_so_wanted() {
    on_executors(async || {
        let service = "command = ['/bin/echo', 'once']\nrestart = 'on-failure'";
        let lines = logged(service, "has ended").await;
        assert_eq!(lines, ["once", "it has ended"]);
        let service = "command = ['/bin/sh', '-c', 'kill -9 $$']\nrestart = 'never'";
        let lines = logged(service, "was ended").await;
        assert_eq!(lines, ["it was ended by signal 9"]);
    });
}

#[test]
fn a_service_that_cannot_be_is_told_of() {
    on_executors(async || {
        let lines = logged("command = ['/no/such']\nrestart = 'never'", "start").await;
        assert_eq!(lines, ["it does not start: `/no/such` is not in the guest"]);
        let lines = logged("run = 'x'", "unknown field").await;
        assert!(lines[0].contains("it.toml: line 1: unknown field `run`"), "{lines:?}");
    });
}

#[test]
fn a_shutdown_ends_services_for_good() {
    on_executors(async || {
        let service = "command = ['/bin/sh', '-c', 'echo up; exec sleep 1000']";
        assert_eq!(logged(service, "up").await, ["up"]);
    });
}
