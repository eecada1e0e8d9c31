//! The ends of hosts, connections and of the agent.

use std::fs::File;

use proto::v1;

use crate::support::{Agent, fifo, on_executors, output, wait_for_death, words};

/// Starts a shell that opens the fifo `$0`, and gives the fifo when it has.
async fn start_living(agent: &Agent, session: &agent_client::Session, script: &str) -> File {
    let path = agent.path("life");
    fifo(&path);
    let argv = ["/bin/sh", "-c", script, path.to_str().unwrap()];
    let argv = argv.map(|word| word.as_bytes().to_vec()).to_vec();
    let request = v1::StartRequest { argv, ..Default::default() };
    session.agent().start(request).await.unwrap();
    // Waits for the shell to open the other end.
    File::open(path).unwrap()
}

#[test]
fn processes_end_with_their_connection() {
    on_executors(async || {
        let agent = Agent::start().await;
        let other = agent.session().await;
        let session = agent.session().await;
        let life = start_living(&agent, &session, "exec 3>$0; sleep 1000").await;
        drop(session);
        executor::yield_now().await;
        executor::flush();
        wait_for_death(life);
        assert_eq!(output(&other, words(&["echo", "alive"])).await.stdout, b"alive\n");
    });
}

#[test]
fn those_that_ignore_the_hang_up_are_killed() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let life = start_living(&agent, &session, "trap '' HUP; exec 3>$0; sleep 1000").await;
        drop(session);
        executor::yield_now().await;
        executor::flush();
        wait_for_death(life);
    });
}

#[test]
fn those_that_outlive_the_leader_of_their_group_are_killed() {
    on_executors(async || {
        let agent = Agent::start().await;
        let other = agent.session().await;
        let session = agent.session().await;
        let script = "(trap '' HUP; exec 3>$0; sleep 1000) & wait";
        let life = start_living(&agent, &session, script).await;
        drop(session);
        executor::yield_now().await;
        executor::flush();
        wait_for_death(life);
        // None is left to be collected, and others still are.
        assert_eq!(output(&other, words(&["echo", "alive"])).await.stdout, b"alive\n");
        let left = other.agent().list(v1::ListRequest {}).await.unwrap().into_inner();
        assert_eq!(left.processes, []);
    });
}

#[test]
fn a_shutdown_kills_those_that_outlive_the_leader_of_their_group() {
    on_executors(async || {
        let mut agent = Agent::start().await;
        let session = agent.session().await;
        let script = "(trap '' TERM; exec 3>$0; sleep 1000) & wait";
        let life = start_living(&agent, &session, script).await;
        session.agent().shutdown(v1::ShutdownRequest::default()).await.unwrap();
        wait_for_death(life);
        assert!(agent.process.wait().unwrap().success());
    });
}

#[test]
fn a_shutdown_ends_the_processes_and_the_agent() {
    on_executors(async || {
        let mut agent = Agent::start().await;
        let session = agent.session().await;
        let life = start_living(&agent, &session, "exec 3>$0; sleep 1000").await;
        session.agent().shutdown(v1::ShutdownRequest::default()).await.unwrap();
        wait_for_death(life);
        assert!(agent.process.wait().unwrap().success());
    });
}

#[test]
fn the_agent_says_what_it_is_and_how_it_is() {
    on_executors(async || {
        let agent = Agent::start().await;
        let session = agent.session().await;
        let info = session.agent().info(v1::InfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.version.as_str(), info.init), (env!("CARGO_PKG_VERSION"), false));
        assert!(!info.kernel.is_empty());
        let now = session.agent().statistics(v1::StatisticsRequest {}).await.unwrap().into_inner();
        assert!(now.memory_total > 0 && now.uptime_ms > 0);
    });
}
