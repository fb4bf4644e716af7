use crate::command::Call;

#[test]
fn every_shell_gets_its_completions() {
    for (shell, sign) in [
        ("bash", "complete -F _roomwire"),
        ("zsh", "#compdef roomwire"),
        ("fish", "complete -c roomwire"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = Call::new(&["completions", shell]).run();
        assert!(script.out().contains(sign), "{shell}: {}", script.out());
        assert!(script.out().contains("history"));
    }
    Call::new(&["completions", "tcsh"]).run().failed(2);
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("man1");
    Call::new(&["man", "--output", to.to_str().unwrap()])
        .run()
        .out();
    let help = Call::new(&["help"]).run();
    let (_, commands) = help.out().split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let names = commands.map(|line| line.split_whitespace().next().unwrap());
    for name in names.filter(|name| *name != "help") {
        let page = std::fs::read_to_string(to.join(format!("roomwire-{name}.1"))).unwrap();
        assert!(page.contains(".TH"), "{name}");
    }
    let own = Call::new(&["man"]).run();
    assert!(own.out().contains("Exit codes"), "{}", own.out());
}
