//! The combiner by examples.

use super::*;

fn batch(first_offset: i64, last_offset: i64, delivery_count: i16, delivery_state: i8) -> StateBatch {
    StateBatch { first_offset, last_offset, delivery_count, delivery_state }
}

#[test]
fn a_later_delivery_overwrites_an_earlier_one() {
    let so_far = [batch(0, 10, 1, 0)];
    assert_eq!(
        combine(&so_far, &[batch(3, 5, 2, 0)], NO_START_OFFSET),
        [batch(0, 2, 1, 0), batch(3, 5, 2, 0), batch(6, 10, 1, 0)]
    );
    assert_eq!(combine(&[batch(3, 5, 2, 0)], &so_far, NO_START_OFFSET), combine(&so_far, &[batch(3, 5, 2, 0)], -1));
}
