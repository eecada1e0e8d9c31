//! Seccomp policies.

use seccomp::{Action, Arch, NoIncludes, Options, compile, parse};

/// What calls are asked about: corners of 64-bit comparisons.
const VALUES: [u64; 5] = [0, 1, 0x8000_0000, 1 << 32, u64::MAX];

/// Any text is a policy or a list of mistakes; and a filter says what its policy says.
pub(crate) fn policy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let Ok(policy) = parse("fuzz", text, arch, &NoIncludes) else { continue };
        let Ok(program) = compile(&policy, arch, Options::default()) else { continue };
        for statement in &policy.statements {
            let number = arch.number(&statement.call).expect("a statement names a known call");
            for value in VALUES {
                let arguments = [value, !value, value, !value, value, !value];
                let expected = policy.verdict(&statement.call, &arguments, Action::KillProcess);
                let found = program.run(arch.audit(), number, &arguments).expect("a verdict");
                assert_eq!(found.0, expected.code(), "{}", statement.call);
            }
        }
    }
}
