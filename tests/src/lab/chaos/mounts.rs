use anyhow::Result;

use super::super::cluster::Mount;
use super::{Chaos, faults};

pub(super) fn nfs3(chaos: &mut Chaos<'_>) -> Result<()> {
    mounted(chaos, "3", "", |chaos| {
        faults::power_loss(chaos)?;
        faults::nfs_restart(chaos)
    })
}

pub(super) fn actimeo_short(chaos: &mut Chaos<'_>) -> Result<()> {
    mounted(chaos, "4.2", ",actimeo=1", faults::power_loss)
}

pub(super) fn actimeo_long(chaos: &mut Chaos<'_>) -> Result<()> {
    mounted(chaos, "4.2", ",actimeo=600", faults::power_loss)
}

/// Plays on a spool that is mounted in another way, until all is settled.
fn mounted(
    chaos: &mut Chaos<'_>,
    version: &str,
    more: &str,
    play: fn(&mut Chaos<'_>) -> Result<()>,
) -> Result<()> {
    let mount = |chaos: &mut Chaos<'_>, mount: &Mount| {
        chaos.cluster.end()?;
        chaos.cluster.mount(mount)?;
        chaos.cluster.begin(&chaos.timing)
    };
    mount(chaos, &Mount { version: version.to_owned(), more: more.to_owned() })?;
    let played = play(chaos).and_then(|()| chaos.until_settled(chaos.expected()));
    // The evidence lies on the server, and is judged there.
    let usual = chaos.cluster.end().and_then(|()| chaos.cluster.mount(&Mount::default()));
    played.and(usual)
}
