#![no_main]

#[path = "../../../master/tests/fuzz/target.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::rows(bytes));
