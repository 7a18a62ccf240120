// SPDX-License-Identifier: GPL-2.0-only
/*
 * skeleton: a FIFO in the driver's own memory, as a character device. What is missing is marked TODO(RULE): that rule of
 * `cargo lab grade` fails until it is there. `cargo lab grade . --next` names the first one.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define FIFO_SIZE 4096
/* The number of textbooks, which is not encoded by _IO(). */
#define FIFO_CLEAR 0x1

/*
 * @lock: protects @len and @bytes; not to be held while waiting
 * @len: bytes in the FIFO
 * @wait: tasks that wait for data or for space
 * @async: files with O_ASYNC
 */
static struct {
	struct mutex lock;
	unsigned int len;
	unsigned char bytes[FIFO_SIZE];
	wait_queue_head_t wait;
	struct fasync_struct *async;
} fifo;

static ssize_t skeleton_read(struct file *filp, char __user *buf, size_t count, loff_t *pos)
{
	/*
	 * TODO(read.data): under the lock copy the oldest bytes out, at most @count and at most fifo.len, and return their number.
	 * TODO(read.order): move the rest to the front.
	 * TODO(read.zero): 0 would be the end of the file: without data a read waits.
	 * TODO(read.blocks): without data, wait on fifo.wait without the lock, and look again: another may have been faster.
	 * TODO(read.nonblock): with O_NONBLOCK in filp->f_flags, -EAGAIN instead.
	 * TODO(read.fault): -EFAULT if nothing can be copied, and then nothing is lost.
	 * TODO(read.signal): -ERESTARTSYS when a signal ends the wait.
	 * TODO(write.wakes): there is space now: wake those who wait for it.
	 * Optional (fasync.writable): SIGIO with POLL_OUT, too.
	 */
	return -EOPNOTSUPP;
}

static ssize_t skeleton_write(struct file *filp, const char __user *buf, size_t count, loff_t *pos)
{
	/*
	 * TODO(read.data): under the lock copy @count bytes behind those that are there, and return their number.
	 * TODO(read.wakes): there is data now: wake those who wait for it.
	 * TODO(write.short): take what fits.
	 * TODO(write.blocks): wait while the FIFO is full.
	 * TODO(write.nonblock): with O_NONBLOCK, -EAGAIN instead.
	 * TODO(fasync.readable): SIGIO for files with O_ASYNC: kill_fasync(&fifo.async, SIGIO, POLL_IN).
	 */
	return -EOPNOTSUPP;
}

static __poll_t skeleton_poll(struct file *filp, poll_table *wait)
{
	poll_wait(filp, &fifo.wait, wait);
	/*
	 * TODO(poll.readable): EPOLLIN | EPOLLRDNORM while there is data.
	 * TODO(poll.writable): EPOLLOUT | EPOLLWRNORM while there is space.
	 */
	return 0;
}

static long skeleton_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case FIFO_CLEAR:
		/*
		 * TODO(clear.empties): empty the FIFO under the lock.
		 * TODO(clear.wakes): that makes space, as a read does.
		 */
		return -EOPNOTSUPP;
	default:
		return -ENOTTY;
	}
}

static int skeleton_open(struct inode *inode, struct file *filp)
{
	/* A stream has no position: no seeking, no pread. */
	return stream_open(inode, filp);
}

static int skeleton_release(struct inode *inode, struct file *filp)
{
	/* TODO(fasync.close): take the file off fifo.async. */
	return 0;
}

static const struct file_operations skeleton_fops = {
	.owner = THIS_MODULE,
	.open = skeleton_open,
	.release = skeleton_release,
	.read = skeleton_read,
	.write = skeleton_write,
	.poll = skeleton_poll,
	.unlocked_ioctl = skeleton_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	/* TODO(fasync.readable): .fasync, which calls fasync_helper() with fifo.async. */
};

/* The node /dev/skeleton. The chapter makes it of a major number, a cdev, and mknod; that is as good. */
static struct miscdevice skeleton_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "skeleton",
	.fops = &skeleton_fops,
};

static int __init skeleton_init(void)
{
	mutex_init(&fifo.lock);
	init_waitqueue_head(&fifo.wait);
	/* Last: from here on it can be opened. */
	return misc_register(&skeleton_misc);
}
module_init(skeleton_init);

static void __exit skeleton_exit(void)
{
	misc_deregister(&skeleton_misc);
}
module_exit(skeleton_exit);

MODULE_DESCRIPTION("A FIFO in memory");
MODULE_LICENSE("GPL");
