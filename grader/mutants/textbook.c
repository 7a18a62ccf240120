// SPDX-License-Identifier: GPL-2.0-only
/*
 * A FIFO in memory, the simplest driver that passes every M rule: the base of the mutants in mutants-*.toml, each of which changes a few
 * words of it. One mutex guards the data, one wait queue head serves readers, writers and poll.
 */
#include <linux/cdev.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define FIFO_SIZE 4096
#define FIFO_CLEAR 0x1

struct fifo {
	struct cdev cdev;
	unsigned int current_len;
	unsigned char mem[FIFO_SIZE];
	struct mutex mutex;
	wait_queue_head_t wait;
	struct fasync_struct *queue;
};

static struct fifo *fifo;
static struct class *fifo_class;
static dev_t fifo_dev;

static int fifo_fasync(int fd, struct file *filp, int mode)
{
	struct fifo *dev = filp->private_data;

	return fasync_helper(fd, filp, mode, &dev->queue);
}

static int fifo_open(struct inode *inode, struct file *filp)
{
	filp->private_data = container_of(inode->i_cdev, struct fifo, cdev);
	return stream_open(inode, filp);
}

static int fifo_release(struct inode *inode, struct file *filp)
{
	fifo_fasync(-1, filp, 0);
	return 0;
}

static long fifo_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct fifo *dev = filp->private_data;

	switch (cmd) {
	case FIFO_CLEAR:
		mutex_lock(&dev->mutex);
		dev->current_len = 0;
		mutex_unlock(&dev->mutex);
		wake_up_interruptible(&dev->wait);
		return 0;
	default:
		return -ENOTTY;
	}
}

static __poll_t fifo_poll(struct file *filp, poll_table *table)
{
	struct fifo *dev = filp->private_data;
	__poll_t mask = 0;

	poll_wait(filp, &dev->wait, table);
	mutex_lock(&dev->mutex);
	if (dev->current_len != 0)
		mask |= EPOLLIN | EPOLLRDNORM;
	if (dev->current_len != FIFO_SIZE)
		mask |= EPOLLOUT | EPOLLWRNORM;
	mutex_unlock(&dev->mutex);
	return mask;
}

static ssize_t fifo_read(struct file *filp, char __user *buf, size_t count, loff_t *pos)
{
	struct fifo *dev = filp->private_data;
	bool was_full;

	if (count == 0)
		return 0;
	mutex_lock(&dev->mutex);
	while (dev->current_len == 0) {
		mutex_unlock(&dev->mutex);
		if (filp->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(dev->wait, dev->current_len != 0))
			return -ERESTARTSYS;
		mutex_lock(&dev->mutex);
	}
	count = min_t(size_t, count, dev->current_len);
	if (copy_to_user(buf, dev->mem, count)) {
		mutex_unlock(&dev->mutex);
		return -EFAULT;
	}
	was_full = dev->current_len == FIFO_SIZE;
	memmove(dev->mem, dev->mem + count, dev->current_len - count);
	dev->current_len -= count;
	mutex_unlock(&dev->mutex);
	wake_up_interruptible(&dev->wait);
	if (was_full)
		kill_fasync(&dev->queue, SIGIO, POLL_OUT);
	return count;
}

static ssize_t fifo_write(struct file *filp, const char __user *buf, size_t count, loff_t *pos)
{
	struct fifo *dev = filp->private_data;

	if (count == 0)
		return 0;
	mutex_lock(&dev->mutex);
	while (dev->current_len == FIFO_SIZE) {
		mutex_unlock(&dev->mutex);
		if (filp->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(dev->wait, dev->current_len != FIFO_SIZE))
			return -ERESTARTSYS;
		mutex_lock(&dev->mutex);
	}
	count = min_t(size_t, count, FIFO_SIZE - dev->current_len);
	if (copy_from_user(dev->mem + dev->current_len, buf, count)) {
		mutex_unlock(&dev->mutex);
		return -EFAULT;
	}
	dev->current_len += count;
	mutex_unlock(&dev->mutex);
	wake_up_interruptible(&dev->wait);
	kill_fasync(&dev->queue, SIGIO, POLL_IN);
	return count;
}

static const struct file_operations fifo_fops = {
	.owner = THIS_MODULE,
	.open = fifo_open,
	.release = fifo_release,
	.read = fifo_read,
	.write = fifo_write,
	.poll = fifo_poll,
	.fasync = fifo_fasync,
	.unlocked_ioctl = fifo_ioctl,
};

static int __init fifo_init(void)
{
	struct device *device;
	int err;

	fifo = kzalloc_obj(*fifo);
	if (!fifo)
		return -ENOMEM;
	mutex_init(&fifo->mutex);
	init_waitqueue_head(&fifo->wait);
	err = alloc_chrdev_region(&fifo_dev, 0, 1, "textbook");
	if (err)
		goto free;
	cdev_init(&fifo->cdev, &fifo_fops);
	err = cdev_add(&fifo->cdev, fifo_dev, 1);
	if (err)
		goto unregister;
	fifo_class = class_create("textbook");
	if (IS_ERR(fifo_class)) {
		err = PTR_ERR(fifo_class);
		goto del;
	}
	device = device_create(fifo_class, NULL, fifo_dev, NULL, "textbook0");
	if (IS_ERR(device)) {
		err = PTR_ERR(device);
		goto destroy;
	}
	return 0;
destroy:
	class_destroy(fifo_class);
del:
	cdev_del(&fifo->cdev);
unregister:
	unregister_chrdev_region(fifo_dev, 1);
free:
	kfree(fifo);
	return err;
}

static void __exit fifo_exit(void)
{
	device_destroy(fifo_class, fifo_dev);
	class_destroy(fifo_class);
	cdev_del(&fifo->cdev);
	unregister_chrdev_region(fifo_dev, 1);
	kfree(fifo);
}

module_init(fifo_init);
module_exit(fifo_exit);
MODULE_DESCRIPTION("FIFO in memory, base of the grader's mutants");
MODULE_LICENSE("GPL");
