//! What is said over the control socket.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of what is said. It grows when a client that knows the earlier one would go wrong.
pub const PROTOCOL: u32 = 1;

/// The first line, from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The version of the program.
    pub vmm: String,
}

impl Hello {
    /// What this program says.
    pub fn ours() -> Self {
        Self { protocol: PROTOCOL, vmm: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// What can be asked of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// How it is.
    Status,
    /// Its counters, as `OpenMetrics` text.
    Metrics,
    /// What happens, from now on, until the client leaves.
    Events,
    /// End in order.
    Stop,
    /// Stand still: no vCPU runs, no device touches the guest.
    Pause,
    /// Go on.
    Resume,
    /// Press the guest's power button.
    PowerButton,
    /// End as by a reset of the guest.
    Reset,
    /// Have the guest give up this much memory.
    Balloon {
        /// In bytes.
        bytes: u64,
    },
    /// Give a console's window another size.
    ConsoleResize {
        /// Which: `console0`.
        id: String,
        /// Characters of a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Give a disk another size.
    DiskResize {
        /// Which: `disk0`, or its own id.
        id: String,
        /// In bytes.
        bytes: u64,
    },
    /// Plug a network's cable in or out.
    NetLink {
        /// Which: `net0`, or its own id.
        id: String,
        /// What to do.
        link: LinkTo,
    },
    /// Share one more directory with the guest.
    Share {
        /// Where in the guest: a share without a directory of its own, `fs0` or its tag. Without an id the
        /// machine's only one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The directory, from the root.
        path: PathBuf,
        /// What the guest finds it by.
        name: String,
        /// The guest cannot change anything.
        #[serde(default, rename = "ro")]
        read_only: bool,
    },
    /// Share a directory no more.
    Unshare {
        /// As in [`Request::Share`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What the guest finds it by.
        name: String,
    },
    /// Limit what a device does. What is not named is not limited.
    RateLimit {
        /// Which.
        id: String,
        /// Bytes per second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Requests or frames per second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ops: Option<u64>,
        /// Of what.
        #[serde(default)]
        traffic: Traffic,
    },
}

/// Where a cable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LinkTo {
    /// Plugged in.
    Up,
    /// Unplugged.
    Down,
}

/// What a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// All that the device does.
    #[default]
    Both,
    /// What reaches the guest.
    Rx,
    /// What leaves it.
    Tx,
}

/// A line of the server after the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// It was done.
    Ok(Answer),
    /// It was not.
    Error(Refusal),
    /// Something happened.
    Event(Event),
}

/// What follows from a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The answer to [`Request::Metrics`].
    Metrics(String),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is in the way.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Refusal {
    /// Without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it runs.
    pub state: MachineState,
    /// Seconds since it started, pauses included.
    pub uptime: f64,
    /// Its main process.
    pub pid: u32,
    /// The version of the program.
    pub vmm: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Bytes of guest memory.
    pub memory: u64,
    /// Its virtio devices, in the order of the PCI bus.
    pub devices: Vec<DeviceStatus>,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// It does.
    Running,
    /// It stands still.
    Paused,
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
        })
    }
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// `disk0`: its kind and its place among those of its kind.
    pub id: String,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// What it stands on.
    pub name: String,
    /// Who serves it.
    pub service: Service,
    /// The process that serves it, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How often its process was replaced.
    pub restarts: u32,
}

/// Who serves a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// A thread of the main process.
    Thread,
    /// A process of its own.
    Process,
    /// Nobody for the moment: its process died and is about to be replaced.
    Replacing,
    /// Nobody any more.
    GivenUp,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread => "thread",
            Self::Process => "process",
            Self::Replacing => "being replaced",
            Self::GivenUp => "given up",
        })
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since the machine started.
    pub at: f64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EventKind {
    /// The vCPUs run for the first time.
    Started,
    /// The machine stands still.
    Paused,
    /// It goes on.
    Resumed,
    /// Its power button was pressed.
    PowerButton,
    /// A device was changed.
    Changed {
        /// Which.
        device: String,
        /// How.
        change: String,
    },
    /// The first process of a device is there.
    DeviceStarted {
        /// Which.
        device: String,
        /// Its process.
        pid: i32,
    },
    /// The process of a device is gone.
    DeviceDied {
        /// Which.
        device: String,
        /// What was its process.
        pid: i32,
        /// How.
        reason: String,
        /// What went through its channels before, the oldest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        last_messages: Vec<String>,
    },
    /// Another process serves a device.
    DeviceReplaced {
        /// Which.
        device: String,
        /// Its process.
        pid: i32,
        /// How many there were before.
        restarts: u32,
    },
    /// A device stays without a process.
    DeviceGivenUp {
        /// Which.
        device: String,
        /// Why.
        reason: String,
    },
    /// The guest's kernel panicked and goes on to its crash kernel.
    GuestPanic,
    /// The watchdog fired: the guest did not show in time that it lives.
    Watchdog,
    /// The machine has ended; nothing follows.
    Ended {
        /// How, in one word, as `vmm run --json` says it.
        exit: String,
        /// The exit status.
        status: u8,
    },
    /// The client did not read in time, and so many events were dropped here.
    Lagged {
        /// How many.
        events: u64,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Paused => f.write_str("paused"),
            Self::Resumed => f.write_str("resumed"),
            Self::PowerButton => f.write_str("the power button was pressed"),
            Self::Changed { device, change } => write!(f, "{device}: {change}"),
            Self::DeviceStarted { device, pid } => write!(f, "{device}: served by process {pid}"),
            Self::DeviceDied { device, pid, reason, last_messages } => {
                write!(f, "{device}: process {pid} ended: {reason}")?;
                last_messages.iter().try_for_each(|message| write!(f, "\n    {message}"))
            }
            Self::DeviceReplaced { device, pid, restarts } => {
                write!(f, "{device}: served by process {pid}, successor {restarts}")
            }
            Self::DeviceGivenUp { device, reason } => write!(f, "{device}: given up: {reason}"),
            Self::GuestPanic => f.write_str("the guest's kernel panicked"),
            Self::Watchdog => f.write_str("the watchdog fired"),
            Self::Ended { exit, status } => write!(f, "ended: {exit}, status {status}"),
            Self::Lagged { events } => write!(f, "{events} events were dropped here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_line<T>(value: &T, line: &str)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + fmt::Debug,
    {
        assert_eq!(serde_json::to_string(value).expect("it serializes"), line);
        assert_eq!(serde_json::from_str::<T>(line).expect("it reads back"), *value);
    }

    #[test]
    fn lines_are_as_documented() {
        assert_line(&Request::PowerButton, r#"{"do":"power-button"}"#);
        let id = "disk0".to_owned();
        assert_line(
            &Request::DiskResize { id: id.clone(), bytes: 512 },
            r#"{"do":"disk-resize","id":"disk0","bytes":512}"#,
        );
        assert_line(
            &Request::NetLink { id: "net0".into(), link: LinkTo::Down },
            r#"{"do":"net-link","id":"net0","link":"down"}"#,
        );
        assert_line(
            &Request::ConsoleResize { id: "console0".into(), columns: 132, rows: 43 },
            r#"{"do":"console-resize","id":"console0","columns":132,"rows":43}"#,
        );
        assert_line(
            &Request::RateLimit { id, bytes: None, ops: Some(7), traffic: Traffic::Both },
            r#"{"do":"rate-limit","id":"disk0","ops":7,"traffic":"both"}"#,
        );
        assert_line(&Frame::Ok(Answer::Done), r#"{"ok":"done"}"#);
        let refusal = Refusal::new("no").hint("try");
        assert_line(&Frame::Error(refusal), r#"{"error":{"message":"no","hint":"try"}}"#);
        let kind = EventKind::DeviceDied {
            device: "disk0".into(),
            pid: 7,
            reason: "killed by SIGKILL".into(),
            last_messages: Vec::new(),
        };
        assert_line(
            &Event { at: 1.5, kind },
            r#"{"at":1.5,"kind":"device-died","device":"disk0","pid":7,"reason":"killed by SIGKILL"}"#,
        );
        let kind = EventKind::DeviceStarted { device: "disk0".into(), pid: 7 };
        assert_line(
            &Frame::Event(Event { at: 1.5, kind }),
            r#"{"event":{"at":1.5,"kind":"device-started","device":"disk0","pid":7}}"#,
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for line in ["", "{}", "[]", "null", r#"{"do":"explode"}"#, r#"{"do":"disk-resize"}"#] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
        let deep = "[".repeat(4000);
        assert!(serde_json::from_str::<Request>(&deep).is_err());
    }
}
