use proptest::prelude::*;

use super::*;
use crate::bpf::Verdict;
use crate::parser::{NoIncludes, parse};
use crate::policy::Statement;

fn compiled(text: &str, arch: Arch) -> (Policy, Program) {
    let policy = parse("test.policy", text, arch, &NoIncludes).expect("parses");
    let program = compile(&policy, arch, Options::default()).expect("compiles");
    (policy, program)
}

#[test]
fn a_foreign_architecture_and_x32_are_killed() {
    let (_, program) = compiled("@default allow\nread: 1", Arch::X86_64);
    let run = |arch: Arch, number| program.run(arch.audit(), number, &[0; 6]).unwrap().0;
    let kill = Action::KillProcess.code();
    assert_eq!(run(Arch::Aarch64, 0), kill);
    assert_eq!(run(Arch::X86_64, 0x4000_0000), kill);
    assert_eq!(run(Arch::X86_64, 1), Action::Allow.code());
}

#[test]
fn each_operator_compares_64_bits() {
    let values = [0, 1, 2, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 5 << 32, u64::MAX];
    for operator in ["==", "!=", "<", "<=", ">", ">=", "&", "in"] {
        for value in values {
            let text = format!("read: arg3 {operator} {value}; log");
            let Ok(policy) = parse("t", &text, Arch::X86_64, &NoIncludes) else {
                continue;
            };
            let program = compile(&policy, Arch::X86_64, Options::default()).unwrap();
            for argument in values {
                let arguments = [9, 9, 9, argument, 9, 9];
                let expected = policy.verdict("read", &arguments, Action::KillProcess);
                let found = program.run(Arch::X86_64.audit(), 0, &arguments).unwrap();
                assert_eq!(found.0, expected.code(), "{text} with {argument:#x}");
            }
        }
    }
}

#[test]
fn frequent_calls_are_tested_first() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "write: 1000\n").unwrap();
    let text = "@frequency ./f\nread: 1\nwrite: 1\nclose: 1\nfutex: 1\nmmap: 1\n";
    let policy = parse("p", text, Arch::X86_64, &folder.path().join("p")).unwrap();
    let program = compile(&policy, Arch::X86_64, Options::default()).unwrap();
    // Behind the checks of architecture and x32 comes the test for write (1).
    let first = program.disassemble().into_iter().find(|line| line.contains("if == 0x1 (write),"));
    assert!(first.is_some_and(|line| line.trim_start().starts_with("4:")), "{program:#?}");
}

#[test]
fn the_disassembly_names_calls_and_verdicts() {
    let text = "read: 1\nmmap: arg2 in PROT_READ\nopenat: return EPERM\n";
    let policy = parse("p", text, Arch::X86_64, &NoIncludes).unwrap();
    let program = compile(&policy, Arch::X86_64, Options::default()).unwrap();
    let expected = "   0: load arch
   1: if == 0xc000003e, then 2, else 15
   2: load number
   3: if >= 0x40000000, then 15, else 4
   4: if >= 0x9 (mmap), then 6, else 5
   5: if == 0x0 (read), then 14, else 15
   6: if >= 0x101 (openat), then 8, else 7
   7: if == 0x9 (mmap), then 9, else 15
   8: if == 0x101 (openat), then 13, else 15
   9: load high half of arg2
  10: if & 0xffffffff, then 15, else 11
  11: load low half of arg2
  12: if & 0xfffffffe, then 15, else 14
  13: return 1
  14: allow
  15: kill-process";
    assert_eq!(program.disassemble().join("\n"), expected);
    assert_eq!(Verdict(0x1234_5678).to_string(), "verdict 0x12345678");
}

#[test]
fn a_policy_with_far_jumps_compiles_right() {
    let conditions: Vec<String> = (0..120).map(|n| format!("arg1 == {}", n * 3)).collect();
    let text = format!("{{read, write, mmap}}: {}\nclose: log", conditions.join(" || "));
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let (policy, program) = compiled(&text, arch);
        for call in ["read", "write", "mmap", "close", "ptrace"] {
            for value in [0, 3, 4, 357, 358] {
                let arguments = [0, value, 0, 0, 0, 0];
                let expected = policy.verdict(call, &arguments, Action::KillProcess).code();
                let number = arch.number(call).unwrap();
                assert_eq!(program.run(arch.audit(), number, &arguments).unwrap().0, expected);
            }
        }
    }
}

#[test]
fn a_filter_beyond_the_kernels_limit_is_refused() {
    let conditions: Vec<String> = (0..250).map(|n| format!("arg1 == {n}")).collect();
    let text = format!("{{read, write, mmap, close, futex}}: {}", conditions.join(" || "));
    let policy = parse("t", &text, Arch::X86_64, &NoIncludes).unwrap();
    let error = compile(&policy, Arch::X86_64, Options::default()).expect_err("too long");
    assert!(matches!(error.problem, Problem::TooLong(length) if length > MAX_INSTRUCTIONS));
}

#[test]
fn logging_what_is_missing_overrides_the_default() {
    let policy = parse("t", "@default trap\nread: 1", Arch::X86_64, &NoIncludes).unwrap();
    let options = Options { unmatched: Unmatched::Log };
    let program = compile(&policy, Arch::X86_64, options).unwrap();
    let found = program.run(Arch::X86_64.audit(), 1, &[0; 6]).unwrap();
    assert_eq!(found.0, Action::Log.code());
}

const CALLS: [&str; 8] = ["read", "write", "close", "mmap", "futex", "openat", "ptrace", "ioctl"];

fn operator() -> impl Strategy<Value = Operator> {
    prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Less),
        Just(Operator::LessOrEqual),
        Just(Operator::Greater),
        Just(Operator::GreaterOrEqual),
        Just(Operator::AnyBit),
        Just(Operator::OnlyBits),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..4, any::<u64>(), Just(1 << 32), Just(u64::MAX), Just(0xffff_ffff)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let atom = (0_u8..6, operator(), number()).prop_map(|(argument, operator, value)| Atom {
        argument,
        operator,
        value,
    });
    let clause = proptest::collection::vec(atom, 1..4);
    let action =
        prop_oneof![Just(Action::Allow), Just(Action::Log), (0_u16..9).prop_map(Action::Errno)];
    (proptest::collection::vec(clause, 0..4), action)
        .prop_map(|(any_of, action)| Rule { any_of, action })
}

proptest! {
    #[test]
    fn the_filter_says_what_the_policy_says(
        rules in proptest::collection::vec(proptest::collection::vec(rule(), 1..4), 1..=CALLS.len()),
        frequent in proptest::sample::subsequence(CALLS.to_vec(), 0..4),
        calls in proptest::collection::vec((0..CALLS.len(), [number(), number(), number(), number(), number(), number()]), 1..50),
    ) {
        let statements = rules.into_iter().zip(CALLS).enumerate().map(|(line, (rules, call))| {
            Statement { call: call.into(), rules, file: "t".into(), line }
        });
        let policy = Policy {
            file: "t".into(),
            default: None,
            statements: statements.collect(),
            frequencies: frequent.into_iter().map(|call| (call.into(), 1)).collect(),
        };
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = compile(&policy, arch, Options::default()).unwrap();
            for (call, arguments) in &calls {
                let expected = policy.verdict(CALLS[*call], arguments, Action::KillProcess);
                let number = arch.number(CALLS[*call]).unwrap();
                let found = program.run(arch.audit(), number, arguments).unwrap();
                prop_assert_eq!(found.0, expected.code());
            }
        }
    }
}
