//! The virtio consoles: what each port ends at, and whose window the guest sees.
//!
//! The console without a name is a device of its own: drivers agree on where a lone console finds the
//! size of its window, and not on the message for one of several ports. Named ports share another.

use std::rc::Rc;

use devices::virtio::console::{ConsoleParts, PortEnd, PortRole, WindowSize};
use devices::virtio::control::Change;
use devices::virtio::parts::DeviceParts;
use ipc::Receiver;

use super::Error;
use super::backends::OpenDevice;
use super::directory::Device;
use crate::config::{ConsoleConfig, SerialConfig};
use crate::serial_port::{Bridge, DeviceEnd, Purpose};
use crate::terminal;

/// What consoles stand on.
#[derive(Debug, Default)]
pub(super) struct OpenConsoles {
    pub(super) devices: Vec<OpenDevice>,
    pub(super) bridges: Vec<Bridge>,
}

/// Opens the host's ends of all ports.
pub(super) fn open(configs: &[ConsoleConfig]) -> Result<OpenConsoles, Error> {
    let mut open = OpenConsoles::default();
    let mut named = Vec::new();
    for config in configs {
        let purpose = if config.name.is_some() { Purpose::Stream } else { Purpose::Console };
        let (bridge, end) = Bridge::open(&config.end, purpose).map_err(Error::ConsoleEnd)?;
        open.bridges.extend(bridge);
        let end = match end {
            DeviceEnd::Null => PortEnd::Null,
            DeviceEnd::Output(file) => PortEnd::Output(file.into()),
            DeviceEnd::Both(socket) => PortEnd::Both(socket.into()),
        };
        match &config.name {
            Some(name) => named.push((PortRole::Named(name.clone()), end)),
            None => {
                let on_terminal = config.end == SerialConfig::Stdio;
                let window = if on_terminal { window_size() } else { WindowSize::default() };
                let parts = ConsoleParts::new(vec![(PortRole::Console, end)], window)?;
                let parts = DeviceParts::Console(parts);
                open.devices.insert(0, OpenDevice::new("console", parts));
            }
        }
    }
    if !named.is_empty() {
        let parts = DeviceParts::Console(ConsoleParts::new(named, WindowSize::default())?);
        open.devices.push(OpenDevice::new("console ports", parts));
    }
    Ok(open)
}

/// The console whose window is the terminal's, if there is one.
pub(super) fn on_terminal<'d>(
    configs: &[ConsoleConfig],
    devices: &'d [Rc<Device>],
) -> Option<&'d Rc<Device>> {
    let unnamed = configs.iter().find(|config| config.name.is_none())?;
    let is_console =
        |device: &&Rc<Device>| matches!(*device.parts().lock(), DeviceParts::Console(_));
    // It comes before the device with the named ports.
    devices.iter().find(is_console).filter(|_| unnamed.end == SerialConfig::Stdio)
}

/// Tells the console of each new size of the terminal.
pub(super) async fn follow_window(console: Rc<Device>, mut resized: Receiver<()>) {
    while resized.recv().await.is_ok() {
        if let Err(refusal) = console.change(Change::Window(window_size())).await {
            log::warn!("the console does not follow the terminal's size: {refusal:?}");
        }
    }
}

fn window_size() -> WindowSize {
    let size = terminal::window_size();
    size.map_or(WindowSize::default(), |size| WindowSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}
