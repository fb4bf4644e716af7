use std::process::ExitCode;

fn main() -> ExitCode {
    roomwire::cli::run()
}
