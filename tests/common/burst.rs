//! A burst of frames that a test made. Unit tests and the tests of the whole way use this file alike: it takes `Burst` from
//! the module that declares it, because the crate has another name for each of them.

use super::Burst;

/// Frames of one burst, owned or borrowed.
#[derive(Debug, Default)]
pub struct Frames<T>(pub T);

impl<T: AsRef<[Vec<u8>]>> Burst for Frames<T> {
    fn len(&self) -> usize {
        self.0.as_ref().len()
    }

    fn head(&self, i: usize) -> &[u8] {
        &self.0.as_ref()[i]
    }

    fn wire_len(&self, i: usize) -> u32 {
        u32::try_from(self.0.as_ref()[i].len()).unwrap()
    }

    fn copy_to(&self, i: usize, dst: &mut [u8]) {
        dst.copy_from_slice(&self.0.as_ref()[i][..dst.len()]);
    }
}
