//! The gRPC service: one function per call, and the table of them.

use std::rc::Rc;

use proto::{MAX_MESSAGE_BYTES, v1};
use rpc::{Request, Response, unary, unimplemented};
use rustix::time::{ClockId, Timespec};
use tonic::Status;

use crate::agent::Agent;
use crate::process::Owner;
use crate::{listening, mounts, network, statistics};

/// What this agent can do beyond version 1 of the protocol.
pub(crate) const CAPABILITIES: [&str; 0] = [];

const PREFIX: &str = "/vmm.agent.v1.Agent/";

/// One control connection.
pub(crate) struct Session {
    pub(crate) agent: Rc<Agent>,
    pub(crate) owner: Owner,
}

type Answer<T> = Result<T, Status>;

/// Answers one call.
pub(crate) async fn dispatch(session: Rc<Session>, request: Request) -> Response {
    if !session.authorized(&request) {
        return Status::unauthenticated("the call does not carry this boot's secret").into_http();
    }
    let method = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    macro_rules! calls {
        ($($name:literal => $function:ident,)*) => {
            match method.as_str() {
                $($name => {
                    let handler = async |message| session.$function(message).await;
                    unary(request, MAX_MESSAGE_BYTES, handler).await
                })*
                _ => unimplemented(),
            }
        };
    }
    calls! {
        "Info" => info,
        "Start" => start,
        "Wait" => wait,
        "Signal" => signal,
        "Resize" => resize,
        "List" => list,
        "Mount" => mount,
        "Unmount" => unmount,
        "ConfigureNetwork" => configure_network,
        "SetHostname" => set_hostname,
        "SetTime" => set_time,
        "ReadFile" => read_file,
        "WriteFile" => write_file,
        "FinishFile" => finish_file,
        "Connect" => connect,
        "Listen" => listen,
        "Ports" => ports,
        "FlushLogs" => flush_logs,
        "Statistics" => statistics,
        "Shutdown" => shutdown,
    }
}

// All calls have one shape, also those that need not wait.
#[allow(clippy::unused_async)]
impl Session {
    fn authorized(&self, request: &Request) -> bool {
        rpc::is_authorized(request, &self.agent.secret)
    }

    async fn info(&self, _: v1::InfoRequest) -> Answer<v1::InfoReply> {
        Ok(v1::InfoReply {
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: kernel_release(),
            capabilities: CAPABILITIES.map(Into::into).to_vec(),
            init: self.agent.role.is_init(),
        })
    }

    async fn start(&self, request: v1::StartRequest) -> Answer<v1::StartReply> {
        self.agent.processes.start(&request, self.owner, &self.agent.streams)
    }

    async fn wait(&self, request: v1::WaitRequest) -> Answer<v1::WaitReply> {
        self.agent.processes.wait(request.id).await
    }

    async fn signal(&self, request: v1::SignalRequest) -> Answer<v1::SignalReply> {
        self.agent.processes.signal(&request).map(|()| v1::SignalReply {})
    }

    async fn resize(&self, request: v1::ResizeRequest) -> Answer<v1::ResizeReply> {
        self.agent.processes.resize(&request).map(|()| v1::ResizeReply {})
    }

    async fn list(&self, _: v1::ListRequest) -> Answer<v1::ListReply> {
        Ok(self.agent.processes.list())
    }

    async fn mount(&self, request: v1::MountRequest) -> Answer<v1::MountReply> {
        mounts::mount(&request).map(|()| v1::MountReply {})
    }

    async fn unmount(&self, request: v1::UnmountRequest) -> Answer<v1::UnmountReply> {
        mounts::unmount(&request).map(|()| v1::UnmountReply {})
    }

    async fn configure_network(
        &self,
        request: v1::ConfigureNetworkRequest,
    ) -> Answer<v1::ConfigureNetworkReply> {
        network::configure(&request).map(|()| v1::ConfigureNetworkReply {})
    }

    async fn set_hostname(&self, request: v1::SetHostnameRequest) -> Answer<v1::SetHostnameReply> {
        rustix::system::sethostname(request.name.as_bytes())
            .map(|()| v1::SetHostnameReply {})
            .map_err(|errno| Status::failed_precondition(format!("cannot set it: {errno}")))
    }

    async fn set_time(&self, request: v1::SetTimeRequest) -> Answer<v1::SetTimeReply> {
        let seconds = i64::try_from(request.seconds)
            .map_err(|_| Status::invalid_argument("there is no such time"))?;
        let time = Timespec { tv_sec: seconds, tv_nsec: request.nanoseconds.into() };
        rustix::time::clock_settime(ClockId::Realtime, time)
            .map(|()| v1::SetTimeReply {})
            .map_err(|errno| Status::failed_precondition(format!("cannot set the clock: {errno}")))
    }

    async fn read_file(&self, request: v1::ReadFileRequest) -> Answer<v1::ReadFileReply> {
        self.agent.files.read(&request, self.owner, &self.agent.streams)
    }

    async fn write_file(&self, request: v1::WriteFileRequest) -> Answer<v1::WriteFileReply> {
        self.agent.files.write(&request, self.owner, &self.agent.streams)
    }

    async fn finish_file(&self, request: v1::FinishFileRequest) -> Answer<v1::FinishFileReply> {
        self.agent.files.finish(request.id).await
    }

    async fn connect(&self, request: v1::ConnectRequest) -> Answer<v1::ConnectReply> {
        self.agent.ports.connect(request, &self.agent.streams).await
    }

    async fn listen(&self, request: v1::ListenRequest) -> Answer<v1::ListenReply> {
        self.agent.ports.listen(request, self.owner, &self.agent.transport)
    }

    async fn ports(&self, request: v1::PortsRequest) -> Answer<v1::PortsReply> {
        let known: Vec<_> =
            request.known.into_iter().filter_map(|port| u16::try_from(port).ok()).collect();
        let own = |port| self.agent.ports.is_own(port);
        let ports = listening::changed(&known, own).await.into_iter().map(u32::from).collect();
        Ok(v1::PortsReply { ports })
    }

    async fn flush_logs(&self, _: v1::FlushLogsRequest) -> Answer<v1::FlushLogsReply> {
        self.agent.logs.flush().await;
        Ok(v1::FlushLogsReply {})
    }

    async fn statistics(&self, _: v1::StatisticsRequest) -> Answer<v1::StatisticsReply> {
        Ok(statistics::take())
    }

    async fn shutdown(&self, request: v1::ShutdownRequest) -> Answer<v1::ShutdownReply> {
        self.agent.shutdown.set(request.mode());
        Ok(v1::ShutdownReply {})
    }
}

/// As `uname -r` says it.
pub(crate) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
