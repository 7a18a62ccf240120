// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel's reports mean, in plain words. It must not know where a report came from.

/// Words of a report, and its meaning; the first that fits counts.
const MEANINGS: [(&str, &str); 40] = [
    (
        "KASAN: null-ptr-deref",
        "a pointer that is NULL was followed",
    ),
    (
        "KASAN: slab-use-after-free",
        "memory was used after kfree()",
    ),
    (
        "KASAN: use-after-free",
        "memory was used after it had been freed",
    ),
    (
        "KASAN: slab-out-of-bounds",
        "memory was used past the end of what kmalloc() gave",
    ),
    (
        "KASAN: global-out-of-bounds",
        "memory was used past the end of a variable of the module's",
    ),
    (
        "KASAN: stack-out-of-bounds",
        "memory was used past the end of a local variable",
    ),
    (
        "KASAN: double-free",
        "kfree() was called twice for the same memory",
    ),
    (
        "KASAN: invalid-free",
        "kfree() was called for something that kmalloc() never gave",
    ),
    (
        "KASAN: user-memory-access",
        "a pointer of user space was followed without copy_from_user() or copy_to_user()",
    ),
    (
        "KASAN: wild-memory-access",
        "a pointer that was never set was followed",
    ),
    (
        "BUG: kernel NULL pointer",
        "a pointer that is NULL was followed",
    ),
    (
        "Unable to handle kernel NULL pointer",
        "a pointer that is NULL was followed",
    ),
    (
        "BUG: unable to handle",
        "an address was used where no memory is",
    ),
    (
        "Unable to handle kernel",
        "an address was used where no memory is",
    ),
    (
        "supervisor access user",
        "a pointer of user space was followed without copy_from_user() or copy_to_user()",
    ),
    (
        "general protection fault",
        "a pointer that is no address was followed, often of memory that has been freed",
    ),
    (
        "possible circular locking",
        "two locks are taken in one order here and in the other order there: both may wait for each other for ever",
    ),
    (
        "possible recursive locking",
        "a lock is taken by the one that holds it already: it waits for itself for ever",
    ),
    (
        "inconsistent lock state",
        "a lock is taken in an interrupt and also with interrupts on: the interrupt may wait for what it has interrupted",
    ),
    (
        "irq lock inversion",
        "a lock that an interrupt takes waits for one that is taken with interrupts on",
    ),
    (
        "Invalid wait context",
        "a lock that may sleep is taken where nothing may sleep: under a spin lock or in an interrupt",
    ),
    (
        "bad unlock balance",
        "a lock is given back that is not held",
    ),
    (
        "lock held when returning to user space",
        "a call returned to its program and has not given a lock back",
    ),
    (
        "held lock freed",
        "memory was freed that holds a lock which is taken",
    ),
    (
        "trying to register non-static key",
        "a lock was used before it was initialised: mutex_init(), spin_lock_init(), init_waitqueue_head()",
    ),
    (
        "sleeping function called from invalid context",
        "something that may sleep was called with a spin lock held or in an interrupt",
    ),
    (
        "scheduling while atomic",
        "schedule() was called with a spin lock held or in an interrupt",
    ),
    (
        "do not call blocking ops when",
        "something that may sleep was called between setting the task's state and schedule()",
    ),
    (
        "suspicious RCU usage",
        "data that RCU guards was used without rcu_read_lock()",
    ),
    (
        "kmemleak",
        "memory to which nothing points any more was not freed",
    ),
    (
        "ODEBUG: free active",
        "memory was freed while a timer or a work item in it was still to run",
    ),
    (
        "refcount_t: underflow",
        "a reference was given back once too often",
    ),
    (
        "refcount_t: addition on 0",
        "something was used whose last reference had gone",
    ),
    (
        "list_add corruption",
        "an entry is in a list already, or its memory was freed while it was in one",
    ),
    (
        "list_del corruption",
        "an entry was taken off a list twice, or its memory was freed while it was in one",
    ),
    (
        "UBSAN: array-index-out-of-bounds",
        "an index lies outside of its array",
    ),
    (
        "soft lockup",
        "a CPU has not left the kernel for many seconds: a loop without an end, or a wait for a CPU that is in one",
    ),
    (
        "rcu: INFO:",
        "a CPU has not left the kernel for many seconds: a loop, with interrupts or preemption off or without an end",
    ),
    (
        "NMI: Not continuing",
        "a CPU has not left the kernel, with interrupts off: an interrupt that cannot be masked has shown where it is",
    ),
    (
        "INFO: task",
        "a process has waited in the kernel for minutes, and no signal ends that: nobody wakes it",
    ),
];

/// The meaning of a report, by its first lines.
pub fn of(report: &str) -> Option<&'static str> {
    MEANINGS
        .iter()
        .find(|(kind, _)| report.contains(kind))
        .map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_checker_of_the_debug_kernel_has_a_meaning() {
        for (line, word) in [
            (
                "BUG: KASAN: slab-use-after-free in fifo_read+0x10/0x20 [fifo]",
                "kfree()",
            ),
            (
                "BUG: sleeping function called from invalid context at x.c:1",
                "spin lock",
            ),
            (
                "WARNING: possible circular locking dependency detected",
                "order",
            ),
            ("WARNING: bad unlock balance detected!", "not held"),
            (
                "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                "loop",
            ),
        ] {
            assert!(of(line).unwrap().contains(word), "{line}");
        }
        assert_eq!(of("fifo: hello"), None);
    }
}
