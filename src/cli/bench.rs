//! `roomwire bench`.
use clap::Args;
#[derive(Args)]
#[command(after_help = "Examples:")]
pub struct Flags {}
pub async fn run(_: Flags) -> anyhow::Result<()> {
    Ok(())
}
