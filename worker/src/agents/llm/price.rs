use super::Usage;
use crate::agents::EndpointConfig;

/// What a call costs, in millionths of a dollar, rounded up.
pub(super) fn micro_dollars(config: &EndpointConfig, usage: &Usage) -> u64 {
    let cached_price = config.dollars_per_million_cached.unwrap_or(config.dollars_per_million_read);
    let cached = usage.cached.min(usage.read);
    #[expect(clippy::cast_precision_loss, reason = "nobody pays for 2⁵³ tokens at once")]
    let price = (usage.read - cached) as f64 * config.dollars_per_million_read
        + cached as f64 * cached_price
        + usage.written as f64 * config.dollars_per_million_written;
    // A dollar for a million tokens is a millionth of a dollar for one.
    price.ceil() as u64
}

/// In dollars.
#[must_use]
pub fn dollars(micro_dollars: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "nobody pays nine billion dollars")]
    let micro = micro_dollars as f64;
    micro / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_caching_and_writing_have_their_prices() {
        let mut config = EndpointConfig {
            dollars_per_million_read: 3.0,
            dollars_per_million_written: 15.0,
            ..EndpointConfig::default()
        };
        let check = |config: &EndpointConfig, read, cached, written, expected| {
            let usage = Usage { read, cached, written, is_guess: false };
            assert_eq!(micro_dollars(config, &usage), expected);
        };
        check(&config, 1000, 0, 100, 4500);
        check(&config, 1000, 900, 100, 4500);
        config.dollars_per_million_cached = Some(0.3);
        check(&config, 1000, 900, 100, 2070);
        check(&config, 1000, 5000, 0, 300);
        check(&EndpointConfig::default(), 1000, 0, 1000, 0);
    }
}
