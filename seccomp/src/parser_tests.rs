use proptest::prelude::*;

use super::*;

fn parse_text(text: &str) -> Result<Policy, Vec<Error>> {
    parse("test.policy", text, Arch::X86_64, &NoIncludes)
}

fn only_error(text: &str) -> String {
    let errors = parse_text(text).expect_err(text);
    assert_eq!(errors.len(), 1, "{text}: {errors:?}");
    errors[0].to_string()
}

#[test]
fn the_forms_of_a_statement_are_read() {
    let policy = parse_text(
        "# a policy\n@default trap\nread: 1\n{write, writev}: allow\n\
         openat: return ENOENT\nmmap: arg2 in ~PROT_EXEC || arg3 & MAP_ANONYMOUS && arg0 == 0\n\
         ioctl: { arg1 == 0x5401; return ENOTTY, \\\n  arg1 == 021402; log, trap }\n",
    )
    .expect("parses");
    assert_eq!(policy.default, Some(Action::Trap));
    assert_eq!(policy.allowed_calls(), ["read", "write", "writev", "mmap"]);
    let verdict = |call, arguments| policy.verdict(call, &arguments, Action::KillProcess);
    assert_eq!(verdict("openat", [0; 6]), Action::Errno(2));
    assert_eq!(verdict("mmap", [5, 0, 4, 0, 0, 0]), Action::Trap);
    assert_eq!(verdict("mmap", [5, 0, 3, 0, 0, 0]), Action::Allow);
    assert_eq!(verdict("mmap", [0, 0, 4, 0x20, 0, 0]), Action::Allow);
    assert_eq!(verdict("ioctl", [0, 0x5401, 0, 0, 0, 0]), Action::Errno(25));
    assert_eq!(verdict("ioctl", [0, 0x2302, 0, 0, 0, 0]), Action::Log);
    assert_eq!(verdict("ptrace", [0; 6]), Action::Trap);
}

#[test]
fn a_denylist_allows_the_rest() {
    let policy = parse_text("@denylist\nptrace: return EPERM\n").expect("parses");
    assert_eq!(policy.verdict("read", &[0; 6], Action::KillProcess), Action::Allow);
    assert_eq!(policy.verdict("ptrace", &[0; 6], Action::KillProcess), Action::Errno(1));
}

#[test]
fn each_mistake_is_named_with_its_line() {
    let table = [
        ("", "test.policy: the policy has no rules"),
        ("raed: 1", "test.policy:1: no system call is named `raed`"),
        ("\nread 1", "test.policy:2: expected `:`, found `1`"),
        (
            "read:",
            "test.policy:1: expected a condition (argN ...) or an action: allow, return \
                   ERRNO, trap, log, trace, kill-process, kill-thread, user-notify, found the end \
                   of the line",
        ),
        ("read: 1\nread: 1", "test.policy:2: `read` has a rule already, in line 1"),
        ("read: arg6 == 0", "test.policy:1: `arg6` is no argument: they are arg0 to arg5"),
        ("read: arg0 = 0", "test.policy:1: `=` means nothing here"),
        (
            "read: arg0 == NOPE",
            "test.policy:1: `NOPE` is neither a number nor a constant that \
                                policies know",
        ),
        (
            "read: arg0 == 0x1ffffffffffffffff",
            "test.policy:1: `0x1ffffffffffffffff` is no number \
                                              of 64 bits",
        ),
        ("read: return 4096", "test.policy:1: errno 4096 is out of range (0 to 4095)"),
        (
            "read: { allow, trap }",
            "test.policy:1: no call reaches this rule of `read`: the one \
                                  before it always matches",
        ),
        ("read: arg0 < 0", "test.policy:1: the condition can never be true"),
        (
            "@defualt trap\nread: 1",
            "test.policy:1: unknown directive `@defualt`; there are \
                                   @include, @frequency, @default and @denylist",
        ),
        ("@default trap\n@default log\nread: 1", "test.policy:2: `@default` was given before"),
        (
            "@include ./x\nread: 1",
            "test.policy:1: cannot read `./x`: this policy cannot include \
                                  files",
        ),
        ("read: 1 1", "test.policy:1: expected the end of the line, found `1`"),
        ("{read: 1", "test.policy:1: expected `,` or `}`, found `:`"),
    ];
    for (text, expected) in table {
        assert_eq!(only_error(text), expected, "{text}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let errors = parse_text("raed: 1\nread: 1\nwrite: nope\n").expect_err("two mistakes");
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn calls_of_another_architecture_are_passed_over() {
    let policy = parse("p", "open: 1\nread: 1", Arch::Aarch64, &NoIncludes).expect("parses");
    assert_eq!(policy.allowed_calls(), ["read"]);
}

#[test]
fn files_include_each_other_one_level_deep() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("main.policy");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("common.policy", "read: 1\n");
    write("calls.frequency", "read: 100\nwrite: 5\n");
    let text = "@include ./common.policy\n@frequency ./calls.frequency\nwrite: 1\n";
    let policy = parse("main.policy", text, Arch::X86_64, &main).expect("parses");
    assert_eq!(policy.allowed_calls(), ["read", "write"]);
    assert_eq!(policy.frequencies, [("read".to_owned(), 100), ("write".to_owned(), 5)]);
    assert_eq!(&*policy.statements[0].file, "./common.policy");

    write("common.policy", "@include ./other.policy\n");
    let errors = parse("main.policy", text, Arch::X86_64, &main).expect_err("nested");
    assert_eq!(
        errors[0].to_string(),
        "./common.policy:1: an included policy cannot include another"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = parse_text(&text);
    }

    #[test]
    fn no_tokens_make_it_panic(
        words in proptest::collection::vec(
            prop_oneof![
                Just("read"), Just("mmap"), Just(":"), Just("{"), Just("}"), Just(","), Just(";"),
                Just("arg0"), Just("arg5"), Just("=="), Just("&"), Just("&&"), Just("||"),
                Just("in"), Just("~"), Just("("), Just(")"), Just("|"), Just("1"), Just("return"),
                Just("EPERM"), Just("@default"), Just("allow"), Just("\n"), Just("\\\n"), Just("-1"),
            ],
            0..40,
        )
    ) {
        let _ = parse_text(&words.join(" "));
    }
}
