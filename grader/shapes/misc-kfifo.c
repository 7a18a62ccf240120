// SPDX-License-Identifier: GPL-2.0-only
/*
 * A right driver in another shape: a misc device, a kfifo, wait_event with the condition under the lock's care, and read_iter and write_iter
 * instead of read and write.
 */
#include <linux/fs.h>
#include <linux/kfifo.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <asm/ioctls.h>

#define SIZE 8192
#define FIFO_CLEAR 0x1

static DEFINE_KFIFO(fifo, unsigned char, SIZE);
static DEFINE_MUTEX(lock);
static DECLARE_WAIT_QUEUE_HEAD(readers);
static DECLARE_WAIT_QUEUE_HEAD(writers);
static struct fasync_struct *async_queue;
/* Bytes on their way between the FIFO and the caller; guarded by the lock. */
static unsigned char bounce[SIZE];

static bool is_impatient(struct kiocb *iocb)
{
	return (iocb->ki_filp->f_flags & O_NONBLOCK) || (iocb->ki_flags & IOCB_NOWAIT);
}

static ssize_t misc_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	size_t count = iov_iter_count(to), copied;

	if (!count)
		return 0;
	mutex_lock(&lock);
	while (kfifo_is_empty(&fifo)) {
		mutex_unlock(&lock);
		if (is_impatient(iocb))
			return -EAGAIN;
		if (wait_event_interruptible(readers, !kfifo_is_empty(&fifo)))
			return -ERESTARTSYS;
		mutex_lock(&lock);
	}
	count = kfifo_out_peek(&fifo, bounce, min_t(size_t, count, SIZE));
	copied = copy_to_iter(bounce, count, to);
	if (kfifo_out(&fifo, bounce, copied) != copied)
		copied = 0;
	mutex_unlock(&lock);
	if (!copied)
		return -EFAULT;
	wake_up_interruptible_poll(&writers, EPOLLOUT | EPOLLWRNORM);
	kill_fasync(&async_queue, SIGIO, POLL_OUT);
	return copied;
}

static ssize_t misc_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	size_t count = iov_iter_count(from);

	if (!count)
		return 0;
	mutex_lock(&lock);
	while (kfifo_is_full(&fifo)) {
		mutex_unlock(&lock);
		if (is_impatient(iocb))
			return -EAGAIN;
		if (wait_event_interruptible(writers, !kfifo_is_full(&fifo)))
			return -ERESTARTSYS;
		mutex_lock(&lock);
	}
	count = min_t(size_t, count, kfifo_avail(&fifo));
	if (!copy_from_iter_full(bounce, count, from))
		count = 0;
	count = kfifo_in(&fifo, bounce, count);
	mutex_unlock(&lock);
	if (!count)
		return -EFAULT;
	wake_up_interruptible_poll(&readers, EPOLLIN | EPOLLRDNORM);
	kill_fasync(&async_queue, SIGIO, POLL_IN);
	return count;
}

static __poll_t misc_poll(struct file *filp, poll_table *table)
{
	__poll_t mask = 0;

	poll_wait(filp, &readers, table);
	poll_wait(filp, &writers, table);
	mutex_lock(&lock);
	if (!kfifo_is_empty(&fifo))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (!kfifo_is_full(&fifo))
		mask |= EPOLLOUT | EPOLLWRNORM;
	mutex_unlock(&lock);
	return mask;
}

static long misc_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case FIFO_CLEAR:
		mutex_lock(&lock);
		kfifo_reset(&fifo);
		mutex_unlock(&lock);
		wake_up_interruptible_poll(&writers, EPOLLOUT | EPOLLWRNORM);
		return 0;
	case FIONREAD:
		return put_user((int)kfifo_len(&fifo), (int __user *)arg);
	default:
		return -ENOTTY;
	}
}

static int misc_fasync(int fd, struct file *filp, int mode)
{
	return fasync_helper(fd, filp, mode, &async_queue);
}

static int misc_open(struct inode *inode, struct file *filp)
{
	filp->f_mode |= FMODE_NOWAIT;
	return stream_open(inode, filp);
}

static int misc_release(struct inode *inode, struct file *filp)
{
	return misc_fasync(-1, filp, 0);
}

static const struct file_operations misc_fops = {
	.owner = THIS_MODULE,
	.open = misc_open,
	.release = misc_release,
	.read_iter = misc_read_iter,
	.write_iter = misc_write_iter,
	.poll = misc_poll,
	.fasync = misc_fasync,
	.unlocked_ioctl = misc_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "miscfifo",
	.fops = &misc_fops,
};
module_misc_device(device);

MODULE_DESCRIPTION("FIFO as a misc device, with kfifo");
MODULE_LICENSE("GPL");
