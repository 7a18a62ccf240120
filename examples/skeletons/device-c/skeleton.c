// SPDX-License-Identifier: GPL-2.0-only
/*
 * skeleton: a driver of the virtio-fifo device, for its first FIFO. docs/virtio-fifo.md specifies the device; DRV-n is a requirement
 * there. What is missing is marked TODO(RULE): that rule of `cargo lab grade` fails until it is there.
 * `cargo lab grade . --next` names the first one. Complete here: the way into service and out of it, and requests to the device.
 */
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include "virtio_fifo.h"

/* Most payload of a message, in bytes. */
#define CHUNK 4096
/* Limit of a wait for the device (DRV-16). */
#define PATIENCE (20 * HZ)
/* The number of textbooks, which is not encoded by _IO(). */
#define FIFO_CLEAR 0x1

/* Positions count the bytes of a stream from its beginning (specification, section 6.1). */
struct fifo {
	struct kref ref;	/* the device's, and one of each open file */
	struct miscdevice misc;
	struct virtio_device *vdev;
	struct mutex control;	/* one request to the device at a time */

	spinlock_t lock;	/* protects what follows; taken in interrupts */
	bool gone;		/* the device: calls fail with ENODEV */
	struct virtqueue *vqs[FIFO_QUEUES];
	u32 capacity, flags;
	u64 received, consumed;	/* of the rx stream: end of what came, and of what was read */
	u64 sent, limit;	/* of the tx stream: end of what was written, and of what may be (DRV-6) */

	wait_queue_head_t wait;	/* tasks that wait for data or for space */
	struct fasync_struct *async;	/* files with O_ASYNC */
	struct completion answered;
	unsigned int answer_len;

	/* Memory that the device reads and writes. */
	struct virtio_fifo_ctrl_req req;
	struct virtio_fifo_ctrl_resp resp;
	struct virtio_fifo_state event;
	struct {
		struct virtio_fifo_tx_hdr hdr;
		u8 data[CHUNK];
	} tx;
	struct {
		struct virtio_fifo_rx_hdr hdr;
		u8 data[CHUNK];
	} rx;
};

/* Interrupt of a queue: the device has used a buffer of it. */
static void skeleton_interrupt(struct virtqueue *vq)
{
	struct fifo *fifo = vq->vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&fifo->lock, flags);
	if (vq->index == FIFO_CONTROL && virtqueue_get_buf(vq, &fifo->answer_len))
		complete(&fifo->answered);
	/*
	 * TODO(read.data): FIFO_RX: fifo->rx holds a message: check it (DRV-11), keep its bytes until they are read, and give the buffer
	 * back then. FIFO_TX: the device has accepted fifo->tx, which can be used again.
	 * TODO(read.wakes): wake those who wait on fifo->wait, after the lock.
	 * TODO(fasync.readable): kill_fasync(&fifo->async, SIGIO, POLL_IN) where data has come.
	 */
	spin_unlock_irqrestore(&fifo->lock, flags);
}

/* Makes a request of the device; the answer is fifo->resp. */
static int skeleton_request(struct fifo *fifo, u32 type)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	unsigned long flags, left;
	bool gone;

	sg_init_one(&out, &fifo->req, sizeof(fifo->req));
	sg_init_one(&in, &fifo->resp, sizeof(fifo->resp));
	reinit_completion(&fifo->answered);
	spin_lock_irqsave(&fifo->lock, flags);
	gone = fifo->gone;
	if (!gone) {
		fifo->req.type = cpu_to_le32(type);
		fifo->req.tx_sent = cpu_to_le64(fifo->sent);
		virtqueue_add_sgs(fifo->vqs[FIFO_CONTROL], sgs, 1, 1, fifo, GFP_ATOMIC);
		virtqueue_kick(fifo->vqs[FIFO_CONTROL]);
	}
	spin_unlock_irqrestore(&fifo->lock, flags);
	if (gone)
		return -ENODEV;
	left = wait_for_completion_timeout(&fifo->answered, PATIENCE);
	return left && fifo->answer_len >= sizeof(fifo->resp) && !fifo->resp.status ? 0 : -EIO;
}

static ssize_t skeleton_read(struct kiocb *iocb, struct iov_iter *to)
{
	/*
	 * TODO(read.data): copy what has come and was not read, fifo->consumed to fifo->received, at most iov_iter_count(to), by
	 * copy_to_iter() and without the spinlock. Then it is consumed.
	 * TODO(read.order): an empty buffer goes back to the device, which learns of it by rx_consumed in a message (DRV-8).
	 * TODO(read.zero): 0 would be the end of the file: without data a read waits.
	 * TODO(read.blocks): without data, wait on fifo->wait, and look again.
	 * TODO(read.nonblock): with O_NONBLOCK in iocb->ki_filp->f_flags, -EAGAIN instead.
	 */
	return -EOPNOTSUPP;
}

static ssize_t skeleton_write(struct kiocb *iocb, struct iov_iter *from)
{
	/*
	 * TODO(read.data): copy_from_iter() into fifo->tx.data, fill the header (DRV-5, DRV-7), virtqueue_add_outbuf(), virtqueue_kick().
	 * TODO(write.short): not more than the credit (DRV-6): in a loopback FIFO fifo->consumed + fifo->capacity - fifo->sent.
	 * TODO(write.blocks): without credit, wait. A FIFO gets credit when its bytes are read.
	 */
	return -EOPNOTSUPP;
}

static __poll_t skeleton_poll(struct file *filp, poll_table *wait)
{
	struct fifo *fifo = filp->private_data;

	poll_wait(filp, &fifo->wait, wait);
	/*
	 * TODO(poll.readable): EPOLLIN | EPOLLRDNORM while there is data.
	 * TODO(poll.writable): EPOLLOUT | EPOLLWRNORM while there is credit.
	 */
	return 0;
}

static long skeleton_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case FIFO_CLEAR:
		/*
		 * TODO(clear.empties): skeleton_request(fifo, FIFO_CTRL_CLEAR) under fifo->control; all below rx_floor of the answer is
		 * dropped, also what comes later (DRV-15).
		 * TODO(clear.wakes): that makes space.
		 */
		return -EOPNOTSUPP;
	default:
		return -ENOTTY;
	}
}

static int skeleton_open(struct inode *inode, struct file *filp)
{
	/* misc_deregister() waits for this function, so the FIFO is there. */
	struct fifo *fifo = container_of(filp->private_data, struct fifo, misc);

	kref_get(&fifo->ref);
	filp->private_data = fifo;
	return stream_open(inode, filp);
}

static void skeleton_free(struct kref *ref)
{
	kfree(container_of(ref, struct fifo, ref));
}

static int skeleton_release(struct inode *inode, struct file *filp)
{
	struct fifo *fifo = filp->private_data;

	/* TODO(fasync.close): take the file off fifo->async. */
	kref_put(&fifo->ref, skeleton_free);
	return 0;
}

static const struct file_operations skeleton_fops = {
	.owner = THIS_MODULE,
	.open = skeleton_open,
	.release = skeleton_release,
	.read_iter = skeleton_read,
	.write_iter = skeleton_write,
	.poll = skeleton_poll,
	.unlocked_ioctl = skeleton_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	/* TODO(fasync.readable): .fasync, which calls fasync_helper() with fifo->async. */
};

/* Out of service. The device keeps what was not read. */
static void skeleton_stop(struct fifo *fifo)
{
	/* After the last request: its answer needs the queue. */
	mutex_lock(&fifo->control);
	spin_lock_irq(&fifo->lock);
	fifo->gone = true;
	spin_unlock_irq(&fifo->lock);
	mutex_unlock(&fifo->control);
	wake_up(&fifo->wait);
	virtio_reset_device(fifo->vdev);
	fifo->vdev->config->del_vqs(fifo->vdev);
}

/* Into service, where the device stands (DRV-4). */
static int skeleton_start(struct fifo *fifo)
{
	struct virtqueue_info infos[FIFO_QUEUES] = {
		{ "control", skeleton_interrupt }, { "event", skeleton_interrupt },
		{ "rx", skeleton_interrupt }, { "tx", skeleton_interrupt },
	};
	struct virtio_fifo_state *state = &fifo->resp.state;
	int err;

	err = virtio_find_vqs(fifo->vdev, FIFO_QUEUES, fifo->vqs, infos, NULL);
	if (err)
		return err;
	virtio_device_ready(fifo->vdev);
	mutex_lock(&fifo->control);
	err = skeleton_request(fifo, FIFO_CTRL_GET_STATE);
	mutex_unlock(&fifo->control);
	if (err)
		return err;
	spin_lock_irq(&fifo->lock);
	fifo->capacity = le32_to_cpu(state->capacity);
	fifo->flags = le32_to_cpu(state->flags);
	fifo->received = le64_to_cpu(state->rx_floor);
	fifo->consumed = fifo->received;
	fifo->sent = le64_to_cpu(state->tx_accepted);
	fifo->limit = le64_to_cpu(state->tx_limit);
	/* TODO(read.data): give the device fifo->rx to fill (virtqueue_add_inbuf, virtqueue_kick), and fifo->event (section 6.4). */
	spin_unlock_irq(&fifo->lock);
	return 0;
}

static int skeleton_probe(struct virtio_device *vdev)
{
	struct fifo *fifo = kzalloc_obj(*fifo);
	int err;

	if (!fifo)
		return -ENOMEM;
	kref_init(&fifo->ref);
	mutex_init(&fifo->control);
	spin_lock_init(&fifo->lock);
	init_waitqueue_head(&fifo->wait);
	init_completion(&fifo->answered);
	fifo->vdev = vdev;
	vdev->priv = fifo;
	err = skeleton_start(fifo);
	if (err)
		goto stop;
	fifo->misc.minor = MISC_DYNAMIC_MINOR;
	fifo->misc.name = "skeleton";
	fifo->misc.fops = &skeleton_fops;
	/* Last: from here on it can be opened. */
	err = misc_register(&fifo->misc);
	if (!err)
		return 0;
stop:
	skeleton_stop(fifo);
	vdev->priv = NULL;
	kref_put(&fifo->ref, skeleton_free);
	return err;
}

static void skeleton_remove(struct virtio_device *vdev)
{
	struct fifo *fifo = vdev->priv;

	/* Files may stay open: the last one frees the memory. */
	skeleton_stop(fifo);
	misc_deregister(&fifo->misc);
	vdev->priv = NULL;
	kref_put(&fifo->ref, skeleton_free);
}

static const struct virtio_device_id skeleton_ids[] = {
	{ VIRTIO_ID_FIFO, VIRTIO_DEV_ANY_ID },
	{ }
};
MODULE_DEVICE_TABLE(virtio, skeleton_ids);

static struct virtio_driver skeleton_driver = {
	.driver.name = "skeleton",
	.id_table = skeleton_ids,
	.validate = virtio_fifo_validate,
	.probe = skeleton_probe,
	.remove = skeleton_remove,
};
module_virtio_driver(skeleton_driver);

MODULE_DESCRIPTION("A driver of the virtio-fifo device");
MODULE_LICENSE("GPL");
