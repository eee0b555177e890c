//! `lb detach`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;

use super::{check::verdict, complain, instance, print, reading};
use crate::{config, dataplane};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
For a balancer whose agent was killed: detaches its program from every interface and removes its maps, pins and managed \
addresses. Connections through it end. A running agent does this itself on SIGTERM; while one runs, this command \
refuses.")]
pub(super) struct Arguments {
    /// Name of the instance
    #[arg(long, value_name = "NAME", value_parser = instance, default_value = config::DEFAULT_INSTANCE)]
    instance: String,
    /// Take instance and pin root from this configuration
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    config: Option<PathBuf>,
    /// The bpffs that holds the pins
    #[arg(long, value_name = "DIR")]
    pin_root: Option<PathBuf>,
}

pub(super) async fn detach(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (instance, configured) = match &arguments.config {
        None => (arguments.instance.clone(), config::DEFAULT_PIN_ROOT.into()),
        Some(path) => match reading::configuration(path).await {
            Ok(checked) => (checked.model.instance, checked.model.pin_root),
            Err(findings) => {
                complain(&findings.to_string());
                bail!(
                    "{}; --instance and --pin-root need no configuration",
                    verdict(&findings)
                );
            }
        },
    };
    let pin_root = arguments.pin_root.as_ref().unwrap_or(&configured);
    let removed = dataplane::detach(&instance, pin_root).await?;
    if removed.is_empty() {
        print(&format!(
            "nothing to detach: there is no instance \"{instance}\" under {}; --config or --pin-root names another place\n",
            pin_root.display()
        ))?;
    }
    for line in removed {
        print(&format!("{line}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
