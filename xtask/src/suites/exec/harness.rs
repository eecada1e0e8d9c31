//! Commands in guests as others start them: cargo, and files of cases.

use super::super::Case;
use super::super::programs::Program;
use super::case;

/// What cargo would have built.
const SAMPLE: Program = Program {
    name: "sample-tests",
    sources: &[("sample.rs", include_str!("sample.rs"))],
    arguments: &["--test"],
};

pub(super) fn cases() -> Vec<Case> {
    SAMPLE.build();
    vec![
        case(
            "exec/runner-of-cargo",
            r#"[ -x "$VMM_BED_SCRATCH/sample-tests" ] || fail 'the tests could not be built'
              cp "$VMM_BED_SCRATCH/sample-tests" tests
              runner="vmm exec --kernel $VMM_BED_KERNEL --modules $VMM_BED_MODULES --runner"
              export CARGO_PKG_NAME=sample
              mkdir package && cd package
              status 0 $runner "$OLDPWD/tests" --test-threads=1 passes </dev/null
              says out 'test result: ok. 1 passed; 0 failed'
              status 101 $runner ../tests --test-threads=1 </dev/null
              says out 'this is how it fails'
              says out '1 passed; 1 failed'"#,
        ),
        case(
            "exec/cases-of-a-file",
            r#"cat >cases.toml <<THE_END
options = ["--kernel", "$VMM_BED_KERNEL", "--modules", "$VMM_BED_MODULES", "--minimal"]
timeout = "60s"
parallel = 2
[[case]]
name = "bytes come back"
command = ["cat"]
stdin = "text"
stdout = "text"
[[case]]
name = "a status"
run = "echo out; echo err >&2; exit 3"
status = 3
stderr-has = ["rr"]
[[case]]
name = "skipped"
run = "echo no disk; exit 77"
[[case]]
name = "fails"
run = "echo some output; exit 1"
[[case]]
name = "takes too long"
run = "sleep 100"
timeout = "3s"
THE_END
              status 1 vmm test cases.toml --junit results.xml
              says out '^1\.\.5$'
              says out '^ok 1 - bytes come back$'
              says out '^ok 2 - a status$'
              says out '^ok 3 - skipped # SKIP no disk$'
              says out '^not ok 4 - fails$'
              says out 'message: "status 1 instead of 0"'
              says out '    some output'
              says out '^not ok 5 - takes too long$'
              says out 'the time was over after 3s'
              says results.xml 'tests="5" failures="2" errors="0" skipped="1"'
              status 0 vmm test cases.toml --only 'a status'"#,
        ),
    ]
}
