//! Making the child, by clone3(2) or, where that is missing, clone(2).
//!
//! clone3 does two things that nothing else can: it puts the child into a control group before it exists for anybody,
//! without the lock that moving a process takes (a move waits for every processor, which is milliseconds), and it
//! resets all signal handlers in one go. The C libraries have no function for it. What is missing to use it is only what
//! they have in their `clone`: the child finds itself on an empty stack and has to leave for its function at once,
//! because the frame that it was called from belongs to the parent.

use std::{
    arch::asm,
    ffi::{c_int, c_long, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::AtomicI32,
};

use super::child::{Plan, run_child, set_signal_mask};

const STACK_BYTES: usize = 64 * 1024;
const ALL_SIGNALS: u64 = u64::MAX;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const BASE_FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID;

/// `struct clone_args` of clone3(2), as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which system call makes the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// clone3(2), or clone(2) where that cannot be used.
    Clone3,
    /// clone(2).
    #[cfg_attr(not(test), expect(dead_code, reason = "the way of old kernels, tried on new ones"))]
    Clone,
}

/// A process id and its descriptor, or the errno.
type Made = Result<(c_long, c_int), io::Error>;

/// Makes the child, which goes through the plan; returns when it has executed its program or left.
///
/// # Errors
/// As clone(2).
pub(super) fn clone(
    plan: &mut Plan<'_>,
    number: &AtomicI32,
    directory: Option<BorrowedFd<'_>>,
    by: By,
) -> io::Result<(u32, OwnedFd)> {
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK_BYTES);
    let (all, mut mask) = (ALL_SIGNALS, 0_u64);
    // SAFETY: the stack, the plan and everything that it points to live until the child has left this memory, because
    // CLONE_VFORK keeps this thread asleep that long. The mask pointers are valid for the kernel's set size.
    let made = unsafe {
        let bottom = stack.as_mut_ptr();
        // Aligned for any ABI.
        let size = STACK_BYTES - bottom.add(STACK_BYTES).addr() % 16;
        set_signal_mask(&raw const all, &raw mut mask);
        let made = match by {
            By::Clone3 => by_clone3(plan, number, bottom, size, directory),
            By::Clone => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        };
        let made = match made {
            // Missing (before 5.3), without these flags or fields (before 5.7), or forbidden by a filter that cannot look
            // into its arguments, as container runtimes have it.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::E2BIG | libc::EPERM)) =>
            {
                by_clone(plan, number, bottom, size)
            }
            made => made,
        };
        set_signal_mask(&raw const mask, ptr::null_mut());
        made
    };
    drop(stack);
    let (pid, pidfd) = made?;
    let pid = u32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// # Safety
/// All signals are blocked, and the stack is valid and its end aligned to 16 bytes.
unsafe fn by_clone3(
    plan: &mut Plan<'_>,
    number: &AtomicI32,
    stack: *mut MaybeUninit<u8>,
    stack_size: usize,
    directory: Option<BorrowedFd<'_>>,
) -> Made {
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: u64::from(BASE_FLAGS.cast_unsigned()) | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        child_tid: number.as_ptr().expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: stack.expose_provenance() as u64,
        stack_size: stack_size as u64,
        ..CloneArgs::default()
    };
    if let Some(directory) = directory {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(directory.as_raw_fd().cast_unsigned());
    }
    plan.made_by_clone3 = true;
    let plan: *mut c_void = ptr::from_mut(plan).cast();
    // SAFETY: the arguments are a valid `clone_args` of that size. The child continues on its own stack and calls a
    // function that never returns, so that no code of this function runs twice.
    let result = unsafe { clone3(&raw const args, size_of::<CloneArgs>(), plan) };
    if result < 0 {
        let errno = c_int::try_from(-result).unwrap_or(libc::EINVAL);
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok((result, pidfd))
}

/// The raw system call; in the child, a call of [`run_child`] instead of a return.
///
/// # Safety
/// `args` asks for a stack of the child's own.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: *const CloneArgs, size: usize, plan: *mut c_void) -> c_long {
    let mut result = libc::SYS_clone3;
    // SAFETY: the registers are those of the system call convention (syscall(2)); the child sees copies of them. Its stack
    // pointer is aligned to 16 bytes before the call, as the ABI wants it, and a null frame pointer ends its backtrace.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {plan}",
            "call {child}",
            "ud2",
            "2:",
            plan = in(reg) plan,
            child = in(reg) run_child as extern "C" fn(*mut c_void) -> c_int,
            inout("rax") result,
            in("rdi") args,
            in("rsi") size,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// The raw system call; in the child, a call of [`run_child`] instead of a return.
///
/// # Safety
/// `args` asks for a stack of the child's own.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: *const CloneArgs, size: usize, plan: *mut c_void) -> c_long {
    let result;
    // SAFETY: the registers are those of the system call convention (syscall(2)); the child sees copies of them, and a null
    // frame pointer ends its backtrace.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {plan}",
            "blr {child}",
            "brk #0",
            "2:",
            plan = in(reg) plan,
            child = in(reg) run_child as extern "C" fn(*mut c_void) -> c_int,
            in("x8") libc::SYS_clone3,
            inout("x0") args => result,
            in("x1") size,
            out("x30") _,
        );
    }
    result
}

/// # Safety
/// As [`by_clone3`].
unsafe fn by_clone(plan: &mut Plan<'_>, number: &AtomicI32, stack: *mut MaybeUninit<u8>, stack_size: usize) -> Made {
    let mut pidfd: c_int = -1;
    plan.made_by_clone3 = false;
    // SAFETY: as in `by_clone3`; CLONE_PIDFD writes the descriptor to the parent-tid pointer, and
    // CLONE_CHILD_SETTID the number to an atomic in the shared memory, which nobody else writes.
    let pid = unsafe {
        libc::clone(
            run_child,
            stack.add(stack_size).cast(),
            BASE_FLAGS | libc::SIGCHLD,
            ptr::from_mut(plan).cast(),
            &raw mut pidfd,
            ptr::null_mut::<c_void>(),
            number.as_ptr(),
        )
    };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok((c_long::from(pid), pidfd)) }
}
