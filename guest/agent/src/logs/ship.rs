//! Brings what was logged to the host.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use executor::{Either, Instant, select};
use proto::v1::{LogBatch, LogRecord, logs_client::LogsClient};
use proto::{LOG_PORT, v1};

use super::kmsg::Kmsg;
use super::{Logs, cost};
use crate::agent::Agent;
use crate::transport::Transport;

/// A batch goes when it has so much,
const BATCH_BYTES: usize = 4 << 10;
/// or when its first record is so old.
const BATCH_TIME: Duration = Duration::from_secs(5);
/// What a host gets to take a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts to reach a host that does not listen: what it costs is one packet each way.
const PAUSE: Duration = Duration::from_secs(1);

/// Brings everything to the host, whenever one listens. Kernel messages are taken as process 1 only: under
/// another init they are somebody else's.
pub(crate) async fn run(agent: Rc<Agent>, transport: Transport) {
    let mut kmsg = None;
    if agent.role.is_init() {
        match Kmsg::open() {
            Ok(opened) => kmsg = Some(opened),
            Err(error) => log::warn!("/dev/kmsg: {error}"),
        }
    }
    let mut shipper = Shipper { logs: agent.logs.clone(), kmsg, batch: LogBatch::default() };
    loop {
        if let Err(error) = shipper.serve(&agent, &transport).await {
            log::debug!("the host does not take logs: {error}");
        }
        shipper.logs.flushed();
        // Whoever wants to get rid of all of it makes one attempt more.
        let urgent = async {
            while !shipper.logs.is_urgent() {
                shipper.logs.some().await;
                executor::sleep(PAUSE).await;
            }
        };
        let _ = select(pin!(executor::sleep(PAUSE)), pin!(urgent)).await;
    }
}

struct Shipper {
    logs: Logs,
    kmsg: Option<Kmsg>,
    /// What the host has not confirmed.
    batch: LogBatch,
}

impl Shipper {
    /// Connects, and sends until the connection breaks.
    async fn serve(&mut self, agent: &Agent, transport: &Transport) -> Result<(), String> {
        let connected = async {
            let socket = transport.connect_to_host(LOG_PORT).await.map_err(|e| e.to_string())?;
            let channel = rpc::Channel::open(socket).await.map_err(|e| e.to_string())?;
            let channel = channel.authorized_by(&agent.secret.to_authorization());
            let origin = http::Uri::from_static("http://host");
            Ok::<_, String>(LogsClient::with_origin(channel, origin))
        };
        let mut host =
            executor::timeout(PATIENCE, connected).await.map_err(|e| e.to_string())??;
        loop {
            let has_all = self.gather().await;
            if !self.batch.records.is_empty() || self.batch.dropped > 0 {
                let sent = host.collect(self.batch.clone());
                let sent = executor::timeout(PATIENCE, sent).await.map_err(|e| e.to_string())?;
                let _: tonic::Response<v1::LogReply> = sent.map_err(|s| s.to_string())?;
                self.batch = LogBatch::default();
            }
            if has_all {
                self.logs.flushed();
            }
        }
    }

    /// Fills the batch. Says whether it has all that there was.
    async fn gather(&mut self) -> bool {
        let mut due: Option<Instant> = None;
        let mut bytes: usize = self.batch.records.iter().map(cost).sum();
        loop {
            while bytes < BATCH_BYTES {
                let Some(record) = self.next() else { break };
                bytes += cost(&record);
                self.batch.records.push(record);
            }
            self.batch.dropped += self.logs.0.dropped.take();
            if bytes >= BATCH_BYTES {
                return false;
            }
            if self.logs.is_urgent() {
                return true;
            }
            let due = match due {
                _ if self.batch.records.is_empty() => None,
                Some(due) => Some(due),
                None => Some(executor::now() + BATCH_TIME),
            }
            .inspect(|&time| due = Some(time));
            let late = async {
                match due {
                    Some(due) => executor::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            if let Either::Left(()) = select(pin!(late), pin!(self.more())).await {
                return false;
            }
        }
    }

    fn next(&mut self) -> Option<LogRecord> {
        let logs = &self.logs;
        self.kmsg.as_mut().and_then(|kmsg| kmsg.next(logs)).or_else(|| logs.pop())
    }

    /// Waits until there is more.
    async fn more(&self) {
        let kernel = async {
            match &self.kmsg {
                Some(kmsg) if kmsg.some().await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        let _ = select(pin!(kernel), pin!(self.logs.some())).await;
    }
}
