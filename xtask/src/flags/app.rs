//! Of adding an app.

use clap::Args;

use crate::workspace::app::AppName;
use crate::workspace::route::{Port, UrlPrefix};

#[derive(Debug, Args)]
pub(crate) struct AddApp {
    /// What the app, its folder, its program and its unit are called: letters, digits and dashes
    pub(crate) name: AppName,
    /// Where it listens on 127.0.0.1 [default: the first from 8080 that no app has]
    #[arg(long)]
    pub(crate) port: Option<Port>,
    /// The path that nginx passes on to it [default: /NAME]
    #[arg(long, value_name = "/PATH")]
    pub(crate) route: Option<UrlPrefix>,
    /// Give it /var/cache/NAME, from which goes what was not used for 30 days
    #[arg(long)]
    pub(crate) cache: bool,
    /// Show the files, and write none
    #[arg(long)]
    pub(crate) dry_run: bool,
}
