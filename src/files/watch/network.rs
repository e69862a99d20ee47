//! Which file systems are changed behind the kernel's back.

use std::{io, path::Path};

use crate::files::error::FilesystemError;

/// NFS, CIFS, SMB, SMB2 and FUSE: the magic numbers of statfs(2).
const NETWORK: [u32; 5] = [0x6969, 0xFF53_4D42, 0x517B, 0xFE53_4D42, 0x6573_5546];

/// Refuses directories on file systems where other machines' changes make no events. Blocking.
///
/// # Errors
/// [`FilesystemError::NetworkMount`], or [`FilesystemError::MountStatus`] when statfs(2) fails.
pub(super) fn refuse_network_mount(path: &Path) -> Result<(), FilesystemError> {
    let status = rustix::fs::statfs(path)
        .map_err(|errno| FilesystemError::MountStatus { path: path.to_owned(), source: io::Error::from(errno) })?;
    if is_network(status.f_type) { Err(FilesystemError::NetworkMount(path.to_owned())) } else { Ok(()) }
}

/// The field is signed and its width depends on the machine; the magic number is its low 32 bits.
fn is_network(magic: rustix::fs::FsWord) -> bool {
    NETWORK.iter().any(|network| magic & 0xFFFF_FFFF == i64::from(*network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic_number() {
        assert!(is_network(0x6969));
        assert!(is_network(0x6573_5546));
        // As a machine with a 32-bit field would sign-extend it.
        assert!(is_network(rustix::fs::FsWord::from(0xFF53_4D42_u32.cast_signed())));
        assert!(!is_network(0xEF53));
        assert!(refuse_network_mount(Path::new("/")).is_ok());
        assert!(matches!(refuse_network_mount(Path::new("/gone")), Err(FilesystemError::MountStatus { .. })));
    }
}
