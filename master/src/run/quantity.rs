/// Bytes as people write them: `4GiB`, `4GB` (a little less), `512M` (MiB, as container engines read it), `1.5 GiB`.
///
/// # Errors
/// What is expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || {
        format!(
            "{text:?} is no size; expected a number and a unit, such as 512MiB, 4GiB (4 × 2^30) or 4GB (4 × 10^9)"
        )
    };
    let (number, unit) = split(text).ok_or_else(expected)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    times(number, factor).ok_or_else(expected)
}

/// Time as people write it: `90` (seconds), `90s`, `10m`, `1.5h`, `2d`.
///
/// # Errors
/// What is expected.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let expected =
        || format!("{text:?} is no time; expected a number of s, m, h or d, such as 90s, 10m or 2h");
    let (number, unit) = split(text).ok_or_else(expected)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(expected()),
    };
    times(number, factor).ok_or_else(expected)
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

/// Exact for whole numbers; a fraction is rounded down.
fn times(number: &str, factor: u64) -> Option<u64> {
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, fraction)) if !fraction.is_empty() && fraction.len() <= 9 => {
            let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            let number = whole.parse::<u128>().ok()? * parts + fraction.parse::<u128>().ok()?;
            u64::try_from(number.checked_mul(u128::from(factor))? / parts).ok()
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_exactly() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        check("4GiB", Some(4 << 30));
        check("4GB", Some(4_000_000_000));
        check("4g", Some(4 << 30));
        check("512 MiB", Some(512 << 20));
        check("1.5GiB", Some(3 << 29));
        check("100B", Some(100));
        for bad in ["", "4", "GiB", "4XB", "-4GiB", "4.GiB", "1.1.1G", "1e3M", "99999999999999TiB"] {
            check(bad, None);
        }
        assert!(parse_bytes("4").expect_err("no unit").contains("4GB (4 × 10^9)"));
    }

    #[test]
    fn reads_times() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(parse_seconds(text).ok(), expected, "{text}");
        check("90", Some(90));
        check("90s", Some(90));
        check("10m", Some(600));
        check("1.5h", Some(5400));
        check("2d", Some(172_800));
        for bad in ["", "m", "10x", "-1s", "1h30m"] {
            check(bad, None);
        }
    }
}
