// SPDX-License-Identifier: GPL-2.0-only
/*
 * A right driver in another shape: register_chrdev and no class, so that somebody else makes the node; a semaphore for the mutex; two wait
 * queues on which tasks are put as the textbook does, without wait_event.
 */
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define SIZE 4096
#define FIFO_CLEAR 0x1

static unsigned int length;
static unsigned char *mem;
static struct semaphore sem;
static DECLARE_WAIT_QUEUE_HEAD(r_wait);
static DECLARE_WAIT_QUEUE_HEAD(w_wait);
static struct fasync_struct *async_queue;
static int major;

/* Sleeps until there is something else than this length; the semaphore is held before and, after success, afterwards. */
static int wait_until_not(struct file *filp, wait_queue_head_t *queue, unsigned int unwanted)
{
	DECLARE_WAITQUEUE(wait, current);
	int ret = 0;

	add_wait_queue(queue, &wait);
	while (length == unwanted) {
		if (filp->f_flags & O_NONBLOCK) {
			ret = -EAGAIN;
			break;
		}
		set_current_state(TASK_INTERRUPTIBLE);
		up(&sem);
		schedule();
		if (signal_pending(current)) {
			ret = -ERESTARTSYS;
			goto out;
		}
		if (down_interruptible(&sem)) {
			ret = -ERESTARTSYS;
			goto out;
		}
	}
	if (ret)
		up(&sem);
out:
	remove_wait_queue(queue, &wait);
	__set_current_state(TASK_RUNNING);
	return ret;
}

static ssize_t sem_read(struct file *filp, char __user *buf, size_t count, loff_t *pos)
{
	int ret;

	if (!count)
		return 0;
	if (down_interruptible(&sem))
		return -ERESTARTSYS;
	ret = wait_until_not(filp, &r_wait, 0);
	if (ret)
		return ret;
	count = min_t(size_t, count, length);
	if (copy_to_user(buf, mem, count)) {
		up(&sem);
		return -EFAULT;
	}
	memmove(mem, mem + count, length - count);
	length -= count;
	wake_up_interruptible(&w_wait);
	up(&sem);
	return count;
}

static ssize_t sem_write(struct file *filp, const char __user *buf, size_t count, loff_t *pos)
{
	int ret;

	if (!count)
		return 0;
	if (down_interruptible(&sem))
		return -ERESTARTSYS;
	ret = wait_until_not(filp, &w_wait, SIZE);
	if (ret)
		return ret;
	count = min_t(size_t, count, SIZE - length);
	if (copy_from_user(mem + length, buf, count)) {
		up(&sem);
		return -EFAULT;
	}
	length += count;
	wake_up_interruptible(&r_wait);
	kill_fasync(&async_queue, SIGIO, POLL_IN);
	up(&sem);
	return count;
}

static __poll_t sem_poll(struct file *filp, poll_table *table)
{
	__poll_t mask = 0;

	poll_wait(filp, &r_wait, table);
	poll_wait(filp, &w_wait, table);
	down(&sem);
	if (length != 0)
		mask |= EPOLLIN | EPOLLRDNORM;
	if (length != SIZE)
		mask |= EPOLLOUT | EPOLLWRNORM;
	up(&sem);
	return mask;
}

static long sem_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	if (cmd != FIFO_CLEAR)
		return -ENOTTY;
	down(&sem);
	length = 0;
	up(&sem);
	wake_up_interruptible(&w_wait);
	return 0;
}

static int sem_fasync(int fd, struct file *filp, int mode)
{
	return fasync_helper(fd, filp, mode, &async_queue);
}

static int sem_open(struct inode *inode, struct file *filp)
{
	return stream_open(inode, filp);
}

static int sem_release(struct inode *inode, struct file *filp)
{
	return sem_fasync(-1, filp, 0);
}

static const struct file_operations sem_fops = {
	.owner = THIS_MODULE,
	.open = sem_open,
	.release = sem_release,
	.read = sem_read,
	.write = sem_write,
	.poll = sem_poll,
	.fasync = sem_fasync,
	.unlocked_ioctl = sem_ioctl,
};

static int __init sem_init(void)
{
	sema_init(&sem, 1);
	mem = kmalloc(SIZE, GFP_KERNEL);
	if (!mem)
		return -ENOMEM;
	major = register_chrdev(0, "semfifo", &sem_fops);
	if (major < 0) {
		kfree(mem);
		return major;
	}
	return 0;
}
module_init(sem_init);

static void __exit sem_exit(void)
{
	unregister_chrdev(major, "semfifo");
	kfree(mem);
}
module_exit(sem_exit);

MODULE_DESCRIPTION("FIFO without a class, with a semaphore");
MODULE_LICENSE("GPL");
