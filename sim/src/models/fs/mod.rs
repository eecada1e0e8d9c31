//! A shared directory: programs of the guest, each in a directory of its own, and a host that looks
//! at the files.
//!
//! Each operation does what it says, once, whatever becomes of the back end meanwhile. Handles and nodes
//! outlive it; a file that was removed while it was open may be stale then. Nothing outside is reached.
//! The files are real ones.

mod files;
mod folder;
mod program;
mod words;

use devices::virtio::backend::{BackendContext, DeviceProfile};
use devices::virtio::fs::protocol::{ForgetIn, InHeader, Opcode, OutHeader};
use devices::virtio::fs::{FsOptions, FsParts};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use executor::sim::Numbers;
use zerocopy::{FromBytes, IntoBytes};

use self::folder::Folder;
use self::program::Program;
use self::words::{ROOM, Words};
use super::crimes;
use super::places::Places;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running, Succession};

/// What is forgotten, and all else.
const URGENT: usize = 0;
const QUEUE: usize = 1;

const PLACE: u64 = 0x800;
const PLACES: usize = 16;
const ANSWER: u64 = 0x400;
const TABLE: u64 = PLACE - 0x80;
const HEADER: u32 = size_of::<OutHeader>() as u32;
const PROGRAMS: usize = 3;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The driver, when it starts.
    Driver,
    Program(usize),
    /// Nobody waits.
    Nobody,
}

struct Request {
    who: Who,
    unique: u64,
    bytes: u32,
}

/// How far the driver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    None,
    Asked,
    Ready,
}

/// See the module.
pub(super) struct Fs {
    parts: FsParts,
    folder: Folder,
    places: Places<Request>,
    programs: Vec<Program>,
    session: Session,
    unique: u64,
}

impl Fs {
    pub(super) fn new() -> Self {
        let folder = Folder::new();
        Self {
            parts: FsParts::open(&folder.shared(), FsOptions::new("tag")).expect("a directory"),
            folder,
            places: Places::new(FREE, PLACE, PLACES),
            programs: (0..PROGRAMS).map(Program::new).collect(),
            session: Session::None,
            unique: 0,
        }
    }

    fn send(&mut self, machine: &mut Machine, queue: usize, who: Who, words: &Words) -> Option<()> {
        let place = self.places.free()?;
        let (opcode, node, arguments) = words;
        self.unique += 2;
        let header = InHeader {
            length: (size_of::<InHeader>() + arguments.len()) as u32,
            opcode: *opcode as u32,
            unique: self.unique,
            node: *node,
            uid: 0,
            gid: 0,
            pid: 1,
            extensions: 0,
            padding: 0,
        };
        let bytes = [header.as_bytes(), arguments].concat();
        machine.write(place, &bytes);
        let length = bytes.len() as u32;
        let mut buffers = vec![Buffer::Readable { address: place, length }];
        if who != Who::Nobody {
            let answer = place + ANSWER;
            buffers.push(Buffer::Writable { address: answer, length: HEADER });
            buffers.push(Buffer::Writable { address: answer + 0x20, length: ROOM });
        }
        let head = machine.add(queue, &buffers, Some(place + TABLE));
        machine.sim.note("ask", [(*opcode as u32).into(), *node, arguments.len() as u64]);
        let request = Request { who, unique: self.unique, bytes: length };
        self.places.fill(machine, place, queue, head, request)
    }

    fn ask(&mut self, machine: &mut Machine, random: &mut Numbers) {
        match self.session {
            Session::None => {
                if self.send(machine, QUEUE, Who::Driver, &words::init()).is_some() {
                    self.session = Session::Asked;
                }
            }
            Session::Asked => {}
            Session::Ready => {
                let number = random.below(PROGRAMS as u64) as usize;
                let program = &mut self.programs[number];
                if program.is_waiting() {
                    return;
                }
                if let Some((node, lookups)) = program.forget() {
                    let forget = ForgetIn { lookups }.as_bytes().to_vec();
                    let words = (Opcode::Forget, node, forget);
                    // One that cannot be sent is never forgotten, which is no harm.
                    let _ = self.send(machine, URGENT, Who::Nobody, &words);
                } else if let Some(words) = program.next(random)
                    && self.send(machine, QUEUE, Who::Program(number), &words).is_none()
                {
                    self.programs[number].take_back();
                }
            }
        }
    }
}

impl Model for Fs {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("descriptors");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        self.ask(machine, random);
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        let queue = *random.pick(&[URGENT, QUEUE]);
        crimes::break_rings(machine, random, queue, self.places.end())
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        let (place, request) = self.places.take(queue, used.head);
        let mut ranges = vec![(place, request.bytes), (place + TABLE, 0x80)];
        if request.who == Who::Nobody {
            assert_eq!(used.written, 0, "nobody waits for an answer");
            return self.places.left(machine, place, &ranges, "a request");
        }
        let answer = place + ANSWER;
        let header = machine.read(answer, HEADER as usize);
        let header = OutHeader::read_from_bytes(&header).expect("the sizes are the same");
        assert_eq!(header.unique, request.unique, "the answer to something else");
        assert_eq!(header.length, used.written, "the length of an answer");
        assert!((HEADER..=HEADER + ROOM).contains(&header.length), "more than there is room for");
        let bytes = machine.read(answer + 0x20, (header.length - HEADER) as usize);
        machine.sim.note("answer", [header.error as u64, bytes.len() as u64, 0]);
        // One that died may have written more there.
        ranges.extend([(answer, HEADER), (answer + 0x20, ROOM)]);
        self.places.left(machine, place, &ranges, "an answer");
        let answer = if header.error == 0 { Ok(bytes) } else { Err(-header.error) };
        match request.who {
            Who::Program(number) => self.programs[number].answered(answer),
            _ => {
                assert!(answer.is_ok(), "the driver cannot start");
                self.session = Session::Ready;
            }
        }
    }

    fn reset(&mut self, machine: &mut Machine) {
        let end = self.places.end();
        self.places.clear(machine);
        machine.wipe(end, crimes::BYTES);
        self.session = Session::None;
        for program in &mut self.programs {
            program.reset(&self.folder);
        }
    }

    fn succeeded(&mut self, _machine: &mut Machine, _how: Succession) {
        for program in &mut self.programs {
            program.succeeded();
        }
    }

    fn left_behind(&self) -> Option<String> {
        let left = self.places.all().count();
        (left > 0).then(|| format!("{left} requests"))
    }

    fn finish(&mut self, machine: &mut Machine) {
        machine.assert_all_untouched();
        self.folder.check();
        for program in &self.programs {
            program.check_seen(&self.folder);
        }
    }
}
