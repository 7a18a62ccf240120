// SPDX-License-Identifier: GPL-2.0-only
/*
 * globalfifo, the driver of a textbook on a kernel of today: a FIFO that lies in the driver's own memory, as a character device.
 *
 * There is no hardware and no interrupt. A reader waits for bytes and a writer for space on one wait queue; poll, select and epoll wait on
 * the same, and a process that has set O_ASYNC gets SIGIO. Whoever reads or writes does the waking. The device behind an interrupt, with
 * asynchronous I/O that an interrupt completes, is another driver's matter.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/kfifo.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/wait.h>

#define NAME "globalfifo"
/* Empties the FIFO. The book's number, which is not encoded by _IO(). */
#define FIFO_CLEAR 0x1
/* Bytes that a FIFO may have at most: kfifo keeps them in one piece. */
#define SIZE_MAX_BYTES (4u << 20)

static unsigned int size = 4096;
module_param(size, uint, 0444);
MODULE_PARM_DESC(size, "bytes that the FIFO holds, a power of two (default: 4096)");

/*
 * @bytes: what was written and not yet read; guarded by @lock
 * @lock: held while bytes are copied, so that the bytes of one call stay together; never while waiting
 * @queue: all who wait, for bytes or for space
 * @async: open files with O_ASYNC
 */
struct globalfifo {
	struct kfifo bytes;
	struct mutex lock;
	wait_queue_head_t queue;
	struct fasync_struct *async;
	struct cdev cdev;
	dev_t number;
	struct class *class;
};

static struct globalfifo fifo;

/*
 * Something has changed: @events for those who wait, @band for SIGIO. The wake-up names its events, so that only those who
 * wait for one of them run.
 */
static void tell(__poll_t events, int band)
{
	wake_up_interruptible_poll(&fifo.queue, events);
	kill_fasync(&fifo.async, SIGIO, band);
}

/*
 * Waits until @condition holds, and returns with the lock held then. The condition is looked at under the lock again, since another may
 * have been faster: this is what keeps a wake-up from being lost.
 */
#define lock_when(filp, condition)						\
({										\
	int failed = 0;								\
										\
	for (;;) {								\
		failed = mutex_lock_interruptible(&fifo.lock);			\
		if (failed) {							\
			failed = -ERESTARTSYS;					\
			break;							\
		}								\
		if (condition)							\
			break;							\
		mutex_unlock(&fifo.lock);					\
		if ((filp)->f_flags & O_NONBLOCK) {				\
			failed = -EAGAIN;					\
			break;							\
		}								\
		failed = wait_event_interruptible(fifo.queue, condition);	\
		if (failed)							\
			break;							\
	}									\
	failed;									\
})

static ssize_t globalfifo_read(struct file *filp, char __user *buf, size_t count, loff_t *pos)
{
	unsigned int copied;
	int failed;

	if (!count)
		return 0;
	failed = lock_when(filp, !kfifo_is_empty(&fifo.bytes));
	if (failed)
		return failed;
	count = min_t(size_t, count, kfifo_len(&fifo.bytes));
	/* With a bad address nothing is taken out that was not copied whole. */
	failed = kfifo_to_user(&fifo.bytes, buf, count, &copied);
	mutex_unlock(&fifo.lock);
	if (copied)
		tell(EPOLLOUT | EPOLLWRNORM, POLL_OUT);
	return copied ? (ssize_t)copied : failed;
}

static ssize_t globalfifo_write(struct file *filp, const char __user *buf, size_t count, loff_t *pos)
{
	unsigned int copied;
	int failed;

	if (!count)
		return 0;
	failed = lock_when(filp, !kfifo_is_full(&fifo.bytes));
	if (failed)
		return failed;
	count = min_t(size_t, count, kfifo_avail(&fifo.bytes));
	failed = kfifo_from_user(&fifo.bytes, buf, count, &copied);
	mutex_unlock(&fifo.lock);
	if (copied)
		tell(EPOLLIN | EPOLLRDNORM, POLL_IN);
	return copied ? (ssize_t)copied : failed;
}

static __poll_t globalfifo_poll(struct file *filp, poll_table *wait)
{
	__poll_t events = 0;

	/* First the queue, then the look: what happens in between wakes the caller. */
	poll_wait(filp, &fifo.queue, wait);
	mutex_lock(&fifo.lock);
	if (!kfifo_is_empty(&fifo.bytes))
		events |= EPOLLIN | EPOLLRDNORM;
	if (!kfifo_is_full(&fifo.bytes))
		events |= EPOLLOUT | EPOLLWRNORM;
	mutex_unlock(&fifo.lock);
	return events;
}

static long globalfifo_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	if (cmd != FIFO_CLEAR)
		return -ENOTTY;
	if (mutex_lock_interruptible(&fifo.lock))
		return -ERESTARTSYS;
	kfifo_reset(&fifo.bytes);
	mutex_unlock(&fifo.lock);
	/* There is space: a writer may wait for it. */
	tell(EPOLLOUT | EPOLLWRNORM, POLL_OUT);
	return 0;
}

static int globalfifo_fasync(int fd, struct file *filp, int on)
{
	return fasync_helper(fd, filp, on, &fifo.async);
}

static int globalfifo_open(struct inode *inode, struct file *filp)
{
	return stream_open(inode, filp);
}

static int globalfifo_release(struct inode *inode, struct file *filp)
{
	/* A file that is closed gets no more signals. */
	globalfifo_fasync(-1, filp, 0);
	return 0;
}

static const struct file_operations globalfifo_fops = {
	.owner = THIS_MODULE,
	.open = globalfifo_open,
	.release = globalfifo_release,
	.read = globalfifo_read,
	.write = globalfifo_write,
	.poll = globalfifo_poll,
	.unlocked_ioctl = globalfifo_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.fasync = globalfifo_fasync,
};

static int __init globalfifo_init(void)
{
	struct device *node;
	int failed;

	if (!is_power_of_2(size) || size > SIZE_MAX_BYTES) {
		pr_err(NAME ": size=%u is no power of two up to %u\n", size, SIZE_MAX_BYTES);
		return -EINVAL;
	}
	mutex_init(&fifo.lock);
	init_waitqueue_head(&fifo.queue);
	failed = kfifo_alloc(&fifo.bytes, size, GFP_KERNEL);
	if (failed)
		return failed;
	failed = alloc_chrdev_region(&fifo.number, 0, 1, NAME);
	if (failed)
		goto no_number;
	fifo.class = class_create(NAME);
	if (IS_ERR(fifo.class)) {
		failed = PTR_ERR(fifo.class);
		goto no_class;
	}
	cdev_init(&fifo.cdev, &globalfifo_fops);
	fifo.cdev.owner = THIS_MODULE;
	/* From here on it can be opened. */
	failed = cdev_add(&fifo.cdev, fifo.number, 1);
	if (failed)
		goto no_cdev;
	node = device_create(fifo.class, NULL, fifo.number, NULL, NAME);
	if (IS_ERR(node)) {
		failed = PTR_ERR(node);
		goto no_node;
	}
	return 0;

no_node:
	cdev_del(&fifo.cdev);
no_cdev:
	class_destroy(fifo.class);
no_class:
	unregister_chrdev_region(fifo.number, 1);
no_number:
	kfifo_free(&fifo.bytes);
	return failed;
}
module_init(globalfifo_init);

static void __exit globalfifo_exit(void)
{
	device_destroy(fifo.class, fifo.number);
	cdev_del(&fifo.cdev);
	class_destroy(fifo.class);
	unregister_chrdev_region(fifo.number, 1);
	kfifo_free(&fifo.bytes);
}
module_exit(globalfifo_exit);

MODULE_DESCRIPTION("globalfifo in memory: a textbook's character device");
MODULE_LICENSE("GPL");
