//! A device that is served without a machine.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{
    ConsoleConfig, CpuList, DiskConfig, Error, MachineOptions, NetConfig, QueueCount, RngConfig,
    ShareConfig, VsockConfig, file, key_value,
};

/// A device of `vmm device serve`: `--device type=blk|net|vsock|rng|fs|console,socket=SOCKET,...` or a
/// `[[device]]` table. Behind these two keys comes what the option of `vmm run` for such a device takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct DeviceOptions {
    /// Where front ends connect.
    pub socket: PathBuf,
    /// A machine with this device and nothing else.
    pub machine: MachineOptions,
    /// CPUs of the host for a device whose option for a machine has none; None is any.
    pub cpus: Option<CpuList>,
}

/// What is the same for devices of all kinds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(rename = "type")]
    kind: Kind,
    socket: PathBuf,
}

impl Head {
    const KEYS: [&str; 2] = ["type", "socket"];
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Blk,
    Net,
    Vsock,
    Rng,
    Fs,
    Console,
}

/// An entropy source; `--rng` has no keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rng {
    #[serde(default = "unlimited")]
    rate: RngConfig,
    cpus: Option<CpuList>,
}

fn unlimited() -> RngConfig {
    RngConfig::Unlimited
}

/// A console; `--console` is one port of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Console {
    ports: Vec<ConsoleConfig>,
    cpus: Option<CpuList>,
}

/// Reads the keys of one kind, whatever they stand in.
trait Keys {
    type Error;

    fn read<T: DeserializeOwned>(&self) -> Result<T, Self::Error>;
}

impl Kind {
    fn device<K: Keys>(self, socket: PathBuf, keys: &K) -> Result<DeviceOptions, K::Error> {
        let (mut machine, mut cpus) = (MachineOptions::default(), None);
        match self {
            Self::Blk => machine.serve_disk(keys.read()?),
            Self::Net => machine.nets.push(keys.read::<NetConfig>()?),
            Self::Vsock => machine.vsock = Some(keys.read::<VsockConfig>()?),
            Self::Rng => {
                let rng = keys.read::<Rng>()?;
                (machine.rng, cpus) = (Some(rng.rate), rng.cpus);
            }
            Self::Fs => machine.shares.push(keys.read::<ShareConfig>()?),
            Self::Console => {
                let console = keys.read::<Console>()?;
                (machine.consoles, cpus) = (console.ports, console.cpus);
            }
        }
        Ok(DeviceOptions { socket, machine, cpus })
    }
}

impl MachineOptions {
    /// Adds a disk for front ends, which take as many queues as they like, and refuse a device with fewer.
    pub(crate) fn serve_disk(&mut self, mut disk: DiskConfig) {
        disk.queues.get_or_insert(QueueCount::MOST);
        self.disks.push(disk);
    }
}

/// A list without the keys of all kinds.
struct OfList<'a>(&'a str);

impl Keys for OfList<'_> {
    type Error = key_value::Error;

    fn read<T: DeserializeOwned>(&self) -> Result<T, key_value::Error> {
        key_value::from_part(self.0, |key| !Head::KEYS.contains(&key))
    }
}

impl FromStr for DeviceOptions {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        let Head { kind, socket } = key_value::from_part(text, |key| Head::KEYS.contains(&key))?;
        kind.device(socket, &OfList(text))
    }
}

/// A table without the keys of all kinds.
struct OfTable(toml::Table);

impl Keys for OfTable {
    type Error = toml::de::Error;

    fn read<T: DeserializeOwned>(&self) -> Result<T, toml::de::Error> {
        self.0.clone().try_into()
    }
}

impl TryFrom<toml::Table> for DeviceOptions {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let head = Head::KEYS.into_iter().filter_map(|key| table.remove_entry(key));
        let head = head.collect::<toml::Table>();
        let Head { kind, socket } = head.try_into().map_err(|error| error.message().to_owned())?;
        let shown = socket.display().to_string();
        let device = kind.device(socket, &OfTable(table));
        device.map_err(|error| format!("the device at `{shown}`: {}", error.message()))
    }
}

impl DeviceOptions {
    fn rebase(&mut self, folder: &Path) {
        self.socket = folder.join(&self.socket);
        self.machine.rebase(folder);
    }
}

/// The file of `vmm device serve --config`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServedDevices {
    /// All that is served.
    #[serde(rename = "device")]
    pub devices: Vec<DeviceOptions>,
}

impl ServedDevices {
    /// Reads a file. Relative paths in it start at its folder.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let mut served: Self = file::parse(&file::read(path)?, path)?;
        if let Some(folder) = path.parent() {
            served.devices.iter_mut().for_each(|device| device.rebase(folder));
        }
        Ok(served)
    }
}

/// How many devices one command serves, and how they can be told apart.
pub fn check_served(devices: &[DeviceOptions], most: usize) -> Result<(), Error> {
    if devices.is_empty() {
        return Err(Error::NothingServed);
    }
    if devices.len() > most {
        return Err(Error::TooManyServed { count: devices.len(), most });
    }
    for (index, device) in devices.iter().enumerate() {
        let before = &devices[..index];
        if before.iter().any(|other| other.socket == device.socket) {
            return Err(Error::ServedTwice { socket: device.socket.clone() });
        }
        let ends = device.machine.consoles.iter().map(|port| &port.end);
        for end in ends.filter(|end| end.is_exclusive()) {
            let mut others = before.iter().flat_map(|other| &other.machine.consoles);
            if others.any(|port| port.end == *end) {
                return Err(Error::SameEnd { end: end.clone() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> DeviceOptions {
        text.parse().expect(text)
    }

    #[test]
    fn lists_are_read_by_type() {
        let disk = device("type=blk,path=a.img,socket=a.sock,ro");
        assert_eq!(disk.socket, Path::new("a.sock"));
        let expected = DiskConfig {
            read_only: true,
            queues: Some(QueueCount::MOST),
            ..DiskConfig::new("a.img")
        };
        assert_eq!(disk.machine.disks, [expected]);
        let net = device("type=net,socket=n,tap=tap0").machine;
        assert_eq!(net.nets, ["tap=tap0".parse().expect("a network")]);
        assert_eq!(device("type=rng,socket=r").machine.rng, Some(RngConfig::Unlimited));
        let put = device("type=rng,socket=r,cpus=0-1");
        assert_eq!(put.cpus.map(|cpus| cpus.to_string()), Some("0-1".into()));
        let slow = device("type=rng,rate=64K,socket=r").machine;
        assert_eq!(slow.rng, Some(RngConfig::Limited(65536)));
        let vsock = device("type=vsock,socket=v,path=host,cid=9").machine.vsock;
        assert_eq!(vsock.map(|vsock| vsock.cid.get()), Some(9));
        let share = device("type=fs,socket=f,path=/srv,tag=srv").machine.shares.remove(0);
        assert_eq!((share.tag.as_str(), share.path), ("srv", Some("/srv".into())));
        let hvc = device("type=console,socket=c,ports=stdio").machine.consoles;
        assert_eq!(hvc, ["stdio".parse().expect("a console")]);
        let ports = device(r#"type=console,socket=c,ports=["unix=a,name=b","pty,name=c"]"#);
        assert_eq!(ports.machine.consoles.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let table = [
            ("socket=a", "the key `type` is missing"),
            ("type=rng", "the key `socket` is missing"),
            (
                "type=gpu,socket=a",
                "`gpu` is no value for `type`: one of blk, net, vsock, rng, fs, console is wanted",
            ),
            ("type=blk,socket=a", "the key `path` is missing"),
            ("type=rng,socket=a,socket=b", "the key `socket` is repeated"),
            ("type=rng,socket=a,speed=1", "unknown key `speed`; the keys are rate and cpus"),
            ("type=blk,socket=a,path=b,pth=c", "unknown key `pth` (did you mean `path`?)"),
        ];
        for (text, expected) in table {
            let error = text.parse::<DeviceOptions>().expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    const FILE: &str = r#"
        [[device]]
        type = "blk"
        socket = "disk.sock"
        path = "disk.img"
        queues = 2

        [[device]]
        type = "console"
        socket = "/run/hvc.sock"
        ports = ["unix=hvc"]

        [[device]]
        type = "rng"
        socket = "rng.sock"
        rate = "1M"
    "#;

    #[test]
    fn files_hold_tables_whose_paths_start_at_their_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("devices.toml");
        std::fs::write(&path, FILE).expect("writes");
        let served = ServedDevices::from_file(&path).expect("a file").devices;
        assert_eq!(served.len(), 3);
        assert_eq!(served[0].socket, folder.path().join("disk.sock"));
        assert_eq!(served[0].machine.disks[0].path, folder.path().join("disk.img"));
        assert_eq!(served[0].machine.disks[0].queues.map(QueueCount::get), Some(2));
        assert_eq!(served[1].socket, Path::new("/run/hvc.sock"));
        assert_eq!(served[2].machine.rng, Some(RngConfig::Limited(1 << 20)));
    }

    #[test]
    fn errors_of_files_name_the_device() {
        let table = [
            ("[[device]]\ntype = \"rng\"", "missing field `socket`"),
            ("[[device]]\nsocket = \"a\"", "missing field `type`"),
            (
                "[[device]]\ntype = \"blk\"\nsocket = \"a\"\npath = \"b\"\nqueues = 99",
                "the device at `a`: a disk has 1 to 16 queues",
            ),
            (
                "[[device]]\ntype = \"rng\"\nsocket = \"a\"\npath = \"b\"",
                "the device at `a`: unknown field `path`",
            ),
            ("[device]\ntype = \"rng\"", "invalid type"),
            ("[[devices]]\ntype = \"rng\"", "unknown field `devices`"),
        ];
        for (text, expected) in table {
            let error = file::parse::<ServedDevices>(text, Path::new("f")).expect_err(text);
            let Error::ParseFile { source, .. } = error else { panic!("{error}") };
            assert!(source.to_string().contains(expected), "{text}: {source}");
        }
        let text = "[[device]]\ntype = \"blk\"\nsocket = \"a\"\npaht = \"b\"";
        let error = file::parse::<ServedDevices>(text, Path::new("f")).expect_err(text);
        assert!(matches!(error, Error::ParseFile { nearest: Some(path), .. } if path == "path"));
    }

    #[test]
    fn devices_can_be_told_apart() {
        let check = |texts: &[&str]| {
            let devices = texts.iter().map(|text| device(text)).collect::<Vec<_>>();
            check_served(&devices, 2)
        };
        assert!(matches!(check(&[]), Err(Error::NothingServed)));
        assert!(check(&["type=rng,socket=a", "type=rng,socket=b"]).is_ok());
        let twice = check(&["type=rng,socket=a", "type=blk,socket=a,path=b"]);
        assert!(matches!(twice, Err(Error::ServedTwice { .. })));
        let three = check(&["type=rng,socket=a", "type=rng,socket=b", "type=rng,socket=c"]);
        assert!(matches!(three, Err(Error::TooManyServed { count: 3, most: 2 })));
        let stdio =
            check(&["type=console,socket=a,ports=stdio", "type=console,socket=b,ports=stdio"]);
        assert!(matches!(stdio, Err(Error::SameEnd { .. })));
        assert!(
            check(&["type=console,socket=a,ports=null", "type=console,socket=b,ports=null"])
                .is_ok()
        );
    }
}
