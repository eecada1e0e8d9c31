//! What drivers do with a function of virtio-pci, as `src/pci.rs` reads it.

/// Registers of the common configuration (virtio 1.3 section 4.1.4.3).
const COMMON: u16 = 0;
const ISR: u16 = 0x1000;
const DEVICE: u16 = 0x2000;
const NOTIFY: u16 = 0x3000;
const MSIX_TABLE: u16 = 0x4000;
const MSIX_PENDING: u16 = 0x5000;

#[derive(Debug, Clone, Default)]
struct Driver(Vec<u8>);

impl Driver {
    /// In the BAR.
    fn write(self, at: u16, data: &[u8]) -> Self {
        self.access(0x80 | 0x10, at, data.len()).and(data)
    }

    fn read(self, at: u16, length: usize) -> Self {
        self.access(0x80, at, length)
    }

    /// In configuration space.
    fn write_config(self, at: u16, data: &[u8]) -> Self {
        self.access(0x20 | 0x10, at, data.len()).and(data)
    }

    fn read_config(self, at: u16, length: usize) -> Self {
        self.access(0x20, at, length)
    }

    /// Ports 0xcf8 to 0xcff.
    fn write_port(mut self, port: u8, data: &[u8]) -> Self {
        self.0.extend([0x10, size(data.len()), port]);
        self.and(data)
    }

    fn read_port(mut self, port: u8, length: usize) -> Self {
        self.0.extend([0, size(length), port]);
        self
    }

    /// The back end has something to say: another configuration, or that a queue is broken.
    fn hears(mut self, what: u8) -> Self {
        self.0.extend([0x20 | what, size(4), 0, 0]);
        if what == 30 {
            self.0.extend([9; 24]);
        }
        self
    }

    /// Something else happens, by its number, with this choice.
    fn happens(mut self, deed: u8, choice: &[u8]) -> Self {
        self.0.extend([0x20 | deed, size(4), 0, 0]);
        self.and(choice)
    }

    fn access(mut self, manner: u8, at: u16, length: usize) -> Self {
        self.0.extend([manner, size(length)]);
        self.0.extend(at.to_le_bytes());
        self
    }

    fn and(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self
    }
}

/// The place of a length among those that there are.
fn size(length: usize) -> u8 {
    [1, 2, 4, 8, 3, 5].iter().position(|known| *known == length).expect("a length") as u8
}

fn found() -> Driver {
    let mut driver = Driver::default()
        .write_port(0, &0x8000_0800_u32.to_le_bytes())
        .read_port(4, 4)
        .write_port(4, &[6, 0])
        .write_config(4, &[6, 0])
        .write_config(0x10, &u32::MAX.to_le_bytes());
    for at in (0..0x80).step_by(4) {
        driver = driver.read_config(at, 4);
    }
    driver.write_config(4, &[6, 4])
}

fn status(driver: Driver, status: u8) -> Driver {
    driver.write(COMMON + 20, &[status]).read(COMMON + 20, 1)
}

fn started(features: [u32; 2]) -> Driver {
    let mut driver = Driver::default().write_config(4, &[6, 4]);
    // The MSI-X capability is somewhere in there.
    for at in (0x40..0xc0).step_by(4) {
        driver = driver.write_config(at + 2, &[0, 0x80]);
    }
    for status_bits in [0, 1, 3] {
        driver = status(driver, status_bits);
    }
    for (select, word) in [0_u32, 1, 2].into_iter().zip([features[0], features[1], 0]) {
        driver = driver.write(COMMON, &select.to_le_bytes()).read(COMMON + 4, 4);
        driver =
            driver.write(COMMON + 8, &select.to_le_bytes()).write(COMMON + 12, &word.to_le_bytes());
        driver = driver.read(COMMON + 8, 4).read(COMMON + 12, 4);
    }
    status(driver, 11)
}

fn queue(driver: Driver, index: u16) -> Driver {
    let base = 0x1_0000 * (u64::from(index) + 1);
    let mut driver = driver
        .write(COMMON + 22, &index.to_le_bytes())
        .read(COMMON + 24, 2)
        .write(COMMON + 24, &[64, 0])
        .write(COMMON + 26, &index.to_le_bytes())
        .read(COMMON + 26, 2)
        .read(COMMON + 28, 2)
        .read(COMMON + 30, 2);
    for (at, place) in [(32, base), (40, base + 0x1000), (48, base + 0x2000)] {
        driver = driver.write(COMMON + at, &(place as u32).to_le_bytes());
        driver = driver.write(COMMON + at + 4, &((place >> 32) as u32).to_le_bytes());
        driver = driver
            .write(COMMON + at, &place.to_le_bytes())
            .read(COMMON + at, 4)
            .read(COMMON + at, 8);
    }
    driver.write(COMMON + 28, &[1, 0])
}

fn running() -> Driver {
    let driver = queue(queue(started([1 << 9 | 1 << 29, 1 | 1 << 2]), 0), 1);
    status(driver.write(COMMON + 16, &[0, 0]).read(COMMON + 16, 2), 15)
}

pub(crate) fn pci() -> Vec<Vec<u8>> {
    let entry = |driver: Driver, index: u16| {
        let at = MSIX_TABLE + 16 * index;
        let driver = driver.write(at, &0xfee0_0000_u64.to_le_bytes()).write(at + 8, &[33, 0, 0, 0]);
        driver
            .write(at + 12, &[0, 0, 0, 0])
            .read(at, 8)
            .read(at + 12, 4)
            .write(at + 12, &[1, 0, 0, 0])
    };
    let used = entry(entry(running(), 0), 1)
        .read(MSIX_PENDING, 8)
        .read(ISR, 1)
        .read(DEVICE, 4)
        .read(DEVICE + 8, 8)
        .write(DEVICE, &[1, 2, 3, 4])
        .read(COMMON + 18, 2)
        .read(COMMON + 21, 1)
        .write(NOTIFY, &[0, 0])
        .write(NOTIFY + 4, &[1, 0])
        .write(NOTIFY + 8, &[2, 0])
        .hears(30)
        .read(ISR, 1)
        .read(DEVICE, 4);
    let again = |driver: Driver| status(status(driver, 0), 1);
    let moved = used.clone().write_config(0x10, &0xc100_0000_u32.to_le_bytes());
    let broken = used.clone().hears(31).read(COMMON + 20, 1).write(NOTIFY, &[0, 0]);
    let mut inputs = vec![
        found().0,
        used.clone().0,
        again(used.clone()).0,
        again(broken).0,
        moved.write_config(4, &[0, 0]).write_config(4, &[6, 4]).read(COMMON, 4).0,
        status(started([u32::MAX, u32::MAX]), 15).0,
        status(started([0, 0]), 15).0,
        status(queue(started([0, 1]), 9), 15).0,
        status(started([0, 1]), 0x80).0,
        queue(running(), 0).0,
        status(started([0, 1]).write(COMMON + 22, &[0, 0]).write(COMMON + 24, &[0, 8]), 15).0,
        status(started([0, 1]).write(COMMON + 24, &[3, 0]).write(COMMON + 28, &[1, 0]), 15).0,
        (0..64).step_by(3).fold(running(), |driver, at| driver.read(at, 8).write(at, &[1; 3])).0,
    ];
    inputs.extend(upheavals().into_iter().map(|driver| driver.0));
    inputs.extend(profiles());
    inputs.push(window().0);
    inputs
}

/// The configuration space has a capability through which the BAR can be reached.
fn window() -> Driver {
    const WINDOW: u16 = 0x84;
    let mut driver = Driver::default().write_config(4, &[6, 0]).write_config(WINDOW + 4, &[0]);
    for (offset, length) in [(0_u32, 4_u32), (20, 1), (0x2000, 2), (0x2001, 2), (0x9000, 4), (0, 3)]
    {
        driver = driver.write_config(WINDOW + 8, &offset.to_le_bytes());
        driver = driver.write_config(WINDOW + 12, &length.to_le_bytes());
        driver = driver.write_config(WINDOW + 16, &[1, 0, 0, 0]).read_config(WINDOW + 16, 4);
        driver = driver.read_config(WINDOW + 14, 4).read_config(WINDOW + 18, 2);
    }
    driver.write_config(WINDOW + 4, &[1]).read_config(WINDOW + 16, 4)
}

/// What becomes of back ends, as `happen` in `src/pci.rs` counts it.
const OBJECTS: (u8, &[u8]) = (24, &[0]);
const REFUSES: (u8, &[u8]) = (24, &[1]);
const DIES: (u8, &[u8]) = (24, &[2]);
const IS_REPLACED: (u8, &[u8]) = (25, &[0]);
const IS_REPLACED_BY_ONE_THAT_OBJECTS: (u8, &[u8]) = (25, &[1]);
const PAUSES: (u8, &[u8]) = (26, &[]);
const RESUMES: (u8, &[u8]) = (27, &[]);
const IS_GIVEN_UP: (u8, &[u8]) = (28, &[]);
const HAS_NEWS: (u8, &[u8]) = (29, &[]);

fn upheavals() -> Vec<Driver> {
    let then = |driver: Driver, deeds: &[(u8, &[u8])]| {
        deeds.iter().fold(driver, |driver, (deed, choice)| driver.happens(*deed, choice))
    };
    // What is before the last step: queues are there, and `DRIVER_OK` is not.
    let ready = || queue(started([1 << 29, 1]), 0);
    let run = |driver| status(driver, 15);
    let reset = |driver| status(driver, 0).read(COMMON + 20, 1);
    let configured = |driver: Driver| driver.write(DEVICE, &[1, 2, 3, 4]).write(DEVICE, &[5]);
    let looked = |driver: Driver| driver.read(COMMON + 20, 1).read(ISR, 1).read(DEVICE, 4);
    let heard = |driver: Driver| driver.write(COMMON + 16, &[0, 0]);
    vec![
        then(configured(then(configured(running()), &[DIES])), &[IS_REPLACED, HAS_NEWS]),
        looked(then(running(), &[DIES, IS_REPLACED_BY_ONE_THAT_OBJECTS, IS_REPLACED])),
        then(reset(then(configured(running()), &[DIES])), &[IS_REPLACED]),
        then(run(then(ready(), &[DIES])), &[IS_REPLACED]),
        looked(run(then(heard(ready()), &[OBJECTS]))),
        looked(run(then(heard(ready()), &[REFUSES]))),
        looked(reset(reset(then(running(), &[REFUSES])).read(COMMON + 20, 1))),
        looked(configured(then(running(), &[OBJECTS]))),
        looked(configured(then(running(), &[REFUSES]))),
        configured(then(running(), &[OBJECTS, HAS_NEWS])),
        reset(then(running(), &[PAUSES, PAUSES, DIES, IS_REPLACED, RESUMES, RESUMES])),
        then(run(then(ready(), &[PAUSES])), &[RESUMES]),
        then(
            run(queue(then(reset(then(running(), &[PAUSES])), &[DIES]), 0)),
            &[IS_REPLACED, RESUMES],
        ),
        then(run(then(ready(), &[PAUSES, REFUSES])), &[RESUMES]),
        then(running(), &[PAUSES, REFUSES, RESUMES, REFUSES, PAUSES]),
        then(running(), &[PAUSES, DIES, IS_REPLACED, DIES, RESUMES, IS_REPLACED]),
        reset(looked(configured(then(running(), &[IS_GIVEN_UP, DIES, IS_GIVEN_UP])))),
        reset(then(running(), &[DIES, IS_GIVEN_UP])),
        run(then(ready(), &[IS_GIVEN_UP, DIES])),
        then(configured(then(running(), &[DIES])), &[(25, &[2])]),
        looked(then(running(), &[HAS_NEWS]).hears(31).hears(31).hears(30)),
        looked(Driver::default().hears(31).hears(30)),
        running().happens(30, &[1, 2, 3]),
        run(queue(started([1 << 29, 1]).write(DEVICE + 30, &[1]).write(DEVICE + 20, &[1; 8]), 0)),
    ]
}

/// Profiles, most of which are none: as `profile` in `src/pci.rs` reads them.
fn profiles() -> Vec<Vec<u8>> {
    let profile = |queues: u16, size: u16, kind: u8, config: u16, writes: u8| {
        let mut bytes = vec![0xff];
        bytes.extend(queues.to_le_bytes());
        (0..queues.min(4)).for_each(|_| bytes.extend(size.to_le_bytes()));
        bytes.push(kind);
        bytes.extend((1_u64 << 29).to_le_bytes());
        bytes.extend(config.to_le_bytes());
        bytes.extend([writes, 0]);
        bytes.extend(running().write(DEVICE, &[1]).0);
        bytes
    };
    vec![
        profile(1, 64, 1, 0, 0),
        profile(1, 64, 3, 8, 1),
        profile(3, 64, 16, 8, 1),
        profile(2, 128, 18, 0x1000, 0),
        profile(255, 64, 5, 8, 0),
        profile(256, 64, 5, 8, 0),
        profile(0, 0, 5, 8, 0),
        profile(1, 3, 5, 8, 0),
        profile(1, 64, 0, 8, 0),
        profile(1, 64, 64, 8, 0),
        profile(1, 64, 5, 0x1001, 0),
    ]
}
