use std::time::{Duration, Instant};

use bollard::query_parameters::InspectContainerOptionsBuilder;

use super::connect::Inner;

/// How often the file system's free space is looked at, which costs nothing.
const LOOK: Duration = Duration::from_secs(1);
/// How often the layer is measured whatever the file system says: others may free as much as the container fills.
const MEASURE: Duration = Duration::from_secs(15);
/// Measuring walks the whole layer: it may take one part in so many of the engine's time, and of a watched
/// container's when the file system fills quickly.
const MEASURE_SHARE: u32 = 20;
const MEASURE_SHARE_URGENT: u32 = 4;

/// Watches the writable layer of one container where the engine cannot limit it.
pub(super) struct DiskWatch<'a> {
    pub(super) inner: &'a Inner,
    pub(super) id: &'a str,
    pub(super) limit_bytes: u64,
}

impl DiskWatch<'_> {
    /// Returns when the layer is larger than its limit.
    pub(super) async fn until_full(&self) {
        let mut size_bytes = 0;
        let mut measured_at = Instant::now();
        let mut measuring_took = Duration::ZERO;
        let mut free_then = self.free_bytes();
        loop {
            tokio::time::sleep(LOOK).await;
            let left_bytes = self.limit_bytes - size_bytes;
            let fills_quickly = match (free_then, self.free_bytes()) {
                (Some(then), Some(now)) => then.saturating_sub(now) > left_bytes / 2,
                _ => false,
            };
            let share = if fills_quickly { MEASURE_SHARE_URGENT } else { MEASURE_SHARE };
            let is_due = fills_quickly || measured_at.elapsed() >= MEASURE;
            if !is_due || measured_at.elapsed() < measuring_took * share {
                continue;
            }
            free_then = self.free_bytes();
            let began = Instant::now();
            size_bytes = self.size_bytes().await.unwrap_or(size_bytes);
            measured_at = Instant::now();
            measuring_took = measured_at - began;
            if size_bytes > self.limit_bytes {
                return;
            }
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        fs2::free_space(&self.inner.facts.root_dir).ok()
    }

    async fn size_bytes(&self) -> Option<u64> {
        let options = InspectContainerOptionsBuilder::new().size(true).build();
        let found = self.inner.client.inspect_container(self.id, Some(options)).await.ok()?;
        u64::try_from(found.size_rw?).ok()
    }
}
