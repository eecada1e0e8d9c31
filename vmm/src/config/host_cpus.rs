//! Which processors this host has, and which of them this process may use.

use std::fs;

use super::error::{CpuProblem, Error};
use super::{CpuAffinity, CpuList, MachineOptions};

/// Where the kernel lists those that are there and in use.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Checks that a device can run where it is to.
pub(crate) fn check(whose: &str, cpus: &CpuList) -> Result<(), Error> {
    // Who cannot ask is told when the thread is put there.
    let Ok(allowed) = executor::allowed_processors() else { return Ok(()) };
    let online = fs::read_to_string(ONLINE).ok().and_then(|text| text.trim().parse().ok());
    check_against(whose, cpus, &allowed, online)
}

fn check_against(
    whose: &str,
    cpus: &CpuList,
    allowed: &[u16],
    online: Option<CpuList>,
) -> Result<(), Error> {
    let missing = |there: &[u16]| {
        CpuList::of(cpus.numbers().iter().copied().filter(|number| !there.contains(number)))
    };
    let fail = |missing, source| Err(Error::Cpus { whose: whose.to_owned(), missing, source });
    if let Some(online) = online
        && let Some(missing) = missing(online.numbers())
    {
        return fail(missing, CpuProblem::Absent { online });
    }
    match (missing(allowed), CpuList::of(allowed.iter().copied())) {
        (Some(missing), Some(allowed)) => fail(missing, CpuProblem::Forbidden { allowed }),
        _ => Ok(()),
    }
}

/// The same for all devices and virtual CPUs of a machine.
pub(super) fn check_all(options: &MachineOptions) -> Result<(), Error> {
    let disks = options.root.iter().chain(&options.disks);
    let disks = disks.map(|disk| (format!("the disk `{}`", disk.path.display()), &disk.cpus));
    let nets = options.nets.iter().map(|net| ("a network".to_owned(), &net.cpus));
    let vsock = options.vsock.iter().map(|vsock| ("the vsock".to_owned(), &vsock.cpus));
    let shares = options.shares.iter();
    let shares = shares.map(|share| (format!("the share `{}`", share.tag.as_str()), &share.cpus));
    for (whose, cpus) in disks.chain(nets).chain(vsock).chain(shares) {
        if let Some(cpus) = cpus {
            check(&whose, cpus)?;
        }
    }
    let affinity = options.cpu_affinity.iter().flat_map(CpuAffinity::host_cpus);
    for cpus in affinity {
        check("the virtual CPUs", cpus)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_and_what_is_forbidden_is_named() {
        let list = |text: &str| text.parse::<CpuList>().expect(text);
        let check = |cpus: &str, allowed: &[u16]| {
            check_against("the disk `a`", &list(cpus), allowed, Some(list("0-3")))
        };
        assert!(check("0-3", &[0, 1, 2, 3]).is_ok());
        let error = check("2-5,9", &[0]).expect_err("there are four");
        assert_eq!(error.to_string(), "the disk `a` cannot run on CPUs 4-5,9");
        assert!(matches!(error, Error::Cpus { source: CpuProblem::Absent { .. }, .. }));
        let error = check("1", &[0, 3]).expect_err("may not");
        assert_eq!(error.to_string(), "the disk `a` cannot run on CPU 1");
        let Error::Cpus { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.to_string(), "this process may use the CPUs 0,3");
    }
}
