//! Whole systems in directories of the host, as roots of guests: `vmm run --root-dir`.

use std::time::Duration;

use super::Case;
use crate::bed::systems::System;

const SYSTEMD: System =
    System { name: "systemd", packages: "systemd-sysv,udev,dbus,linux-image-cloud-amd64" };

/// The folder `root` has the system. A unit says on the console what has come of the start when all that
/// multi-user.target wants has, and ends the machine.
const ROOT: &str = r#"
mkdir root; tar xpf "$VMM_BED_SYSTEMS/systemd.tar" -C root --numeric-owner
cat >root/etc/systemd/system/report.service <<'THE_END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/bin/sh -c 'echo state: $(systemctl is-active multi-user.target) $(systemctl --failed --no-legend | wc -l) failed; \
    echo root: $(findmnt -n -o FSTYPE /); touch /written; systemctl poweroff --no-block'
[Install]
WantedBy=multi-user.target
THE_END
mkdir -p root/etc/systemd/system/multi-user.target.wants
ln -s ../report.service root/etc/systemd/system/multi-user.target.wants
boot() { run 0 vmm run --root-dir "$1" -c 2 -m 768M -p 'console=ttyS0 quiet systemd.show_status=0'; }
has_started() { has 'state: active 0 failed'; }
"#;

pub(super) fn cases() -> Vec<Case> {
    vec![case("systemd-under-an-overlay", OVERLAY)]
}

fn case(name: &str, script: &str) -> Case {
    let mut case = Case::new(format!("root-dir/{name}"), format!("{ROOT}{script}"));
    case.timeout = Duration::from_mins(9);
    case.systems = &[SYSTEMD];
    case
}

const OVERLAY: &str = r"
boot root
has_started
has 'root: overlay'
[ ! -e root/written ] || fail 'the host has what the guest wrote'
";
