// SPDX-License-Identifier: GPL-2.0-only
/*
 * globalfifo behind an interrupt: the smallest driver of a virtio-fifo device, for its first FIFO.
 * docs/virtio-fifo.md specifies the device; DRV-n is a requirement there.
 *
 * First the device's side: queues, the way into service and out of it. It must not know user
 * memory. An interrupt enters it at fifo_interrupt(). There is one receive buffer, which the device
 * gets back when all of it is read; one message is sent at a time. Then the users' side: read,
 * write, poll, SIGIO, io_submit(2), ioctl. It must not know queues. Between them fifo_unlock():
 * every change of the state ends there, so none forgets a notification.
 *
 * Left out: suspend (refused), reset of the PCI function, asynchronous writes and a second
 * asynchronous read (io_submit waits), writes above 16 KiB (they are short), FIONREAD, splice.
 */
#include <linux/aio.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uio.h>
#include <linux/virtio_config.h>
#include "fifo.h"

/* The device broke the specification. Nothing that it sends is taken any more. */
static int fifo_fail(struct fifo *fifo, const char *why)
{
	if (!fifo->error)
		dev_err(&fifo->vdev->dev, "failed: %s\n", why);
	fifo->error = fifo->error ?: -EIO;
	return -EIO;
}

/* Gives the device a buffer; true on success. */
static bool fifo_add(struct fifo *fifo, int queue, void *buf, size_t len)
{
	struct virtqueue *vq = fifo->vqs[queue];
	struct scatterlist sg, *sgs[] = { &sg };
	bool out = queue == FIFO_TX;

	sg_init_one(&sg, buf, len);
	if (virtqueue_add_sgs(vq, sgs, out, !out, buf, GFP_ATOMIC))
		return !fifo_fail(fifo, "a broken queue");
	virtqueue_kick(vq);
	return true;
}

/* Sends a message with a payload of @len bytes; whether the device has the buffer now. */
static bool fifo_send(struct fifo *fifo, struct virtio_fifo_tx_hdr *hdr, size_t len)
{
	hdr->offset = cpu_to_le64(fifo->sent);
	hdr->rx_consumed = cpu_to_le64(fifo->consumed);
	fifo->sent += len;
	fifo->reported = fifo->consumed;
	return fifo_add(fifo, FIFO_TX, hdr, sizeof(*hdr) + len);
}

/* Consumes bytes. Returns an empty buffer to the device, and acknowledges (DRV-8). */
static void fifo_consume(struct fifo *fifo, size_t count)
{
	u64 level, unreported;

	fifo->consumed += count;
	level = fifo->received - fifo->consumed;
	unreported = fifo->consumed - fifo->reported;
	if (fifo->capacity && !fifo->error && !fifo->rx_busy && !level)
		fifo->rx_busy = fifo_add(fifo, FIFO_RX, &fifo->rx, sizeof(fifo->rx));
	if (unreported && !fifo->ack_busy &&
	    (fifo->error || !level || unreported * 2 >= fifo->capacity))
		fifo->ack_busy = fifo_send(fifo, &fifo->ack, 0);
}

/* Takes the message in @rx; @len is what the device says to have written (DRV-11). */
static int fifo_accept(struct fifo *fifo, size_t len)
{
	struct virtio_fifo_rx_hdr hdr = fifo->rx.hdr;
	u64 pos = le64_to_cpu(hdr.offset), end = pos + len - sizeof(hdr);
	u64 floor = le64_to_cpu(hdr.rx_floor), limit = le64_to_cpu(hdr.tx_limit);

	if (len <= sizeof(hdr) || len > sizeof(fifo->rx) || pos >= FIFO_MAX_POSITION ||
	    floor > pos || (pos < fifo->received && end > fifo->cleared))
		return fifo_fail(fifo, "an impossible message");
	if (pos < fifo->received)	/* It was under way when the FIFO was cleared. */
		return 0;
	fifo_discard(fifo, pos > fifo->received ? pos : floor);
	if (end > fifo->consumed + fifo->capacity || limit > fifo->sent + fifo->capacity ||
	    ((fifo->flags & FIFO_STATE_LOOPBACK) && end > fifo->sent))
		return fifo_fail(fifo, "more than the FIFO holds");
	fifo->start = pos;
	fifo->received = end;
	fifo->limit = max(fifo->limit, limit);
	fifo->edges |= FIFO_DATA;
	return 0;
}

/* Takes a state that the device told (DRV-12). Its flags count in events, which have an order. */
static int fifo_learn(struct fifo *fifo, struct virtio_fifo_state state, bool is_event)
{
	u64 floor = le64_to_cpu(state.rx_floor), end = le64_to_cpu(state.rx_end);
	u64 accepted = le64_to_cpu(state.tx_accepted), limit = le64_to_cpu(state.tx_limit);

	if (le32_to_cpu(state.capacity) != fifo->capacity || floor > end || accepted > limit ||
	    max(end - floor, limit - accepted) > fifo->capacity || accepted > fifo->sent ||
	    max(end, limit) >= FIFO_MAX_POSITION)
		return fifo_fail(fifo, "an impossible state");
	fifo_discard(fifo, floor);
	fifo->limit = max(fifo->limit, limit);
	if (is_event) {
		fifo->flags = le32_to_cpu(state.flags);
		fifo->end = end;
	}
	return fifo->flags & FIFO_STATE_ERROR ? fifo_fail(fifo, "STATE_ERROR") : 0;
}

/* Takes what the device has used: at most one buffer of each kind (DRV-17). */
static void fifo_interrupt(struct virtqueue *vq)
{
	struct fifo *fifo = vq->vdev->priv;
	unsigned int len;
	void *buf;

	guard(fifo)(fifo);
	virtqueue_get_buf(fifo->vqs[FIFO_CONTROL], &fifo->answer_len);
	while ((buf = virtqueue_get_buf(fifo->vqs[FIFO_TX], &len))) {
		*(buf == &fifo->ack ? &fifo->ack_busy : &fifo->tx_busy) = false;
		/* Accepted, so it has arrived, if only at the device: @rx is not read yet. */
		if (buf == &fifo->tx && !fifo->rx_busy && fifo->sent > fifo->received &&
		    (fifo->flags & FIFO_STATE_LOOPBACK))
			fifo->edges |= FIFO_DATA;
	}
	if (!fifo->error && virtqueue_get_buf(fifo->vqs[FIFO_RX], &len)) {
		fifo->rx_busy = false;
		fifo_accept(fifo, len);
	}
	if (!fifo->error && virtqueue_get_buf(fifo->vqs[FIFO_EVENT], &len)) {
		if (len < sizeof(fifo->event))
			fifo_fail(fifo, "an impossible event");
		else if (!fifo->event.fifo)
			fifo_learn(fifo, fifo->event, true);
		fifo_add(fifo, FIFO_EVENT, &fifo->event, sizeof(fifo->event));
	}
	if (fifo->error != -EIO)
		fifo_consume(fifo, 0);
}

static void fifo_tick(struct work_struct *work)
{
	struct fifo *fifo = container_of(to_delayed_work(work), struct fifo, tick);

	fifo_interrupt(fifo->vqs[FIFO_CONTROL]);
	schedule_delayed_work(&fifo->tick, FIFO_TICK);
}

/* Makes a request of the device, waits for the answer, and takes the state that it tells. */
static int fifo_request(struct fifo *fifo, u32 type)
{
	struct virtio_fifo_state state;
	struct scatterlist out, in, *sgs[] = { &out, &in };
	int err;

	sg_init_one(&out, &fifo->req, sizeof(fifo->req));
	sg_init_one(&in, &fifo->resp, sizeof(fifo->resp));
	guard(mutex)(&fifo->control);
	scoped_guard(fifo, fifo) {
		if (fifo->error)
			return fifo->error;
		fifo->answer_len = 0;
		fifo->req.type = cpu_to_le32(type);
		fifo->req.tx_sent = cpu_to_le64(fifo->sent);
		err = virtqueue_add_sgs(fifo->vqs[FIFO_CONTROL], sgs, 1, 1, fifo, GFP_ATOMIC);
		virtqueue_kick(fifo->vqs[FIFO_CONTROL]);
	}
	wait_event_timeout(fifo->idle, err || READ_ONCE(fifo->answer_len) ||
			   READ_ONCE(fifo->error), FIFO_PATIENCE);
	guard(fifo)(fifo);
	if (fifo->answer_len < sizeof(fifo->resp) || fifo->resp.status)
		return fifo_fail(fifo, "no answer to a request");
	state = fifo->resp.state;
	if (type == FIFO_CTRL_GET_STATE) {
		fifo->capacity = clamp(le32_to_cpu(state.capacity), 1, FIFO_MAX_CAPACITY);
		fifo->sent = le64_to_cpu(state.tx_accepted);
	}
	err = fifo_learn(fifo, state, type == FIFO_CTRL_GET_STATE);
	fifo_consume(fifo, 0);
	return err;
}

/* Out of service: the device takes what was written, and learns what was read (DRV-8, DRV-9). */
static void fifo_stop(struct virtio_device *vdev)
{
	struct fifo *fifo = vdev->priv;

	scoped_guard(mutex, &fifo->control) {
		guard(fifo)(fifo);
		fifo->error = fifo->error ?: -ENODEV;
		if (fifo->error != -EIO)
			fifo_consume(fifo, 0);
	}
	wait_event_timeout(fifo->idle, READ_ONCE(fifo->error) == -EIO ||
			   !(READ_ONCE(fifo->tx_busy) | READ_ONCE(fifo->ack_busy)), FIFO_PATIENCE);
	cancel_delayed_work_sync(&fifo->tick);
	virtio_reset_device(vdev);
	for (int queue = 0; queue < FIFO_QUEUES; queue++)
		while (virtqueue_detach_unused_buf(fifo->vqs[queue]))
			;
	vdev->config->del_vqs(vdev);
}

/* Ends a change of the state, and notifies of the events that rose. */
static void fifo_unlock(struct fifo *fifo, unsigned long flags)
{
	ssize_t filled = fifo_readable(fifo, fifo->aio.len);
	struct fifo_aio aio = fifo->aio;
	__poll_t now, news;

	if (!aio.armed)
		filled = -EAGAIN;
	else if (aio.cancelled)
		filled = -ECANCELED;
	if (filled > 0) {
		memcpy_to_page(aio.page, aio.offset,
			       fifo->rx.data + (fifo->consumed - fifo->start), filled);
		fifo_consume(fifo, filled);
	}
	now = fifo_events(fifo);
	news = fifo->edges | (now & ~fifo->ready);
	WRITE_ONCE(fifo->ready, now);
	fifo->edges = 0;
	if (filled != -EAGAIN)
		fifo->aio = (struct fifo_aio){};
	spin_unlock_irqrestore(&fifo->lock, flags);
	if (filled != -EAGAIN) {
		unpin_user_page(aio.page);
		aio.iocb->ki_complete(aio.iocb, filled);
	}
	wake_up(&fifo->idle);
	if (!news)
		return;
	wake_up_poll(&fifo->wait, news);
	if (news & EPOLLIN)
		kill_fasync(&fifo->async, SIGIO, POLL_IN);
	if (news & EPOLLOUT)
		kill_fasync(&fifo->async, SIGIO, POLL_OUT);
	if (news & EPOLLHUP)
		kill_fasync(&fifo->async, SIGIO, POLL_HUP);
}

/* Reads what there is. Bytes that the device discards meanwhile do not count. */
static ssize_t fifo_read(struct fifo *fifo, struct iov_iter *to)
{
	u64 pos, offset;
	ssize_t count;

	scoped_guard(fifo, fifo) {
		pos = fifo->consumed;
		offset = pos - fifo->start;
		count = fifo_readable(fifo, iov_iter_count(to));
	}
	if (count <= 0)
		return count;
	count = copy_to_iter(fifo->rx.data + offset, count, to);
	guard(fifo)(fifo);
	if (fifo->consumed == pos) {
		fifo_consume(fifo, count);
		return count ?: -EFAULT;
	}
	iov_iter_revert(to, count);
	return -EAGAIN;
}

/* Writes what fits, in one message. */
static ssize_t fifo_write(struct fifo *fifo, struct iov_iter *from)
{
	size_t count;

	/* Not a wait for space: the device takes a message at once (DEV-10). */
	if (wait_event_killable_timeout(fifo->idle, !READ_ONCE(fifo->tx_busy) ||
					READ_ONCE(fifo->error), FIFO_PATIENCE) <= 0)
		return -EIO;
	scoped_guard(fifo, fifo) {
		count = min3(fifo_credit(fifo), iov_iter_count(from), FIFO_CHUNK);
		if (fifo->error || !count || (fifo->flags & FIFO_STATE_HANGUP))
			return fifo->error ?: fifo->flags & FIFO_STATE_HANGUP ? -EPIPE : -EAGAIN;
	}
	count = copy_from_iter(fifo->tx.data, count, from);
	if (!count)
		return -EFAULT;
	guard(fifo)(fifo);
	if (!fifo->error)
		fifo->tx_busy = fifo_send(fifo, &fifo->tx.hdr, count);
	return fifo->error ?: count;
}

/* Called with a lock that a completion takes, by io_cancel(2) and at exit: the tick completes. */
static int fifo_cancel(struct kiocb *iocb)
{
	struct fifo *fifo = iocb->ki_filp->private_data;

	guard(spinlock_irqsave)(&fifo->lock);
	if (fifo->aio.iocb == iocb)
		fifo->aio.cancelled = true;
	if (fifo->aio.armed)
		mod_delayed_work(system_percpu_wq, &fifo->tick, 0);
	return 0;
}

/* Keeps a read of io_submit(2), or a page of it, until there is data. */
static ssize_t fifo_defer(struct fifo *fifo, struct kiocb *iocb, struct iov_iter *to)
{
	struct fifo_aio aio = { .iocb = iocb };
	struct page **pages = &aio.page;

	if (READ_ONCE(fifo->aio.iocb))
		return -EAGAIN;
	aio.len = iov_iter_extract_pages(to, &pages, PAGE_SIZE, 1, 0, &aio.offset);
	if (aio.len <= 0)
		return aio.len ?: -EFAULT;
	set_page_dirty_lock(aio.page);
	scoped_guard(fifo, fifo)
		fifo->aio = aio;
	/* From here on it may be cancelled, and only then completed. */
	kiocb_set_cancel_fn(iocb, fifo_cancel);
	guard(fifo)(fifo);
	fifo->aio.armed = true;
	return -EIOCBQUEUED;
}

/* A call without a wait, but for its turn: one call at a time reads, one writes. */
static ssize_t fifo_try(struct kiocb *iocb, struct iov_iter *iter, bool may_wait)
{
	struct fifo *fifo = iocb->ki_filp->private_data;
	bool reads = iov_iter_rw(iter) == READ;
	ssize_t ret;

	ACQUIRE(mutex_intr, turn)(&fifo->turn[reads]);
	if (ACQUIRE_ERR(mutex_intr, &turn))
		return -ERESTARTSYS;
	ret = reads ? fifo_read(fifo, iter) : fifo_write(fifo, iter);
	if (ret == -EAGAIN && reads && may_wait && (iocb->ki_flags & IOCB_AIO_RW))
		return fifo_defer(fifo, iocb, iter);
	return ret;
}

/* A call: transfers what is possible at once, or waits until something is. */
static ssize_t fifo_call(struct kiocb *iocb, struct iov_iter *iter)
{
	struct fifo *fifo = iocb->ki_filp->private_data;
	bool may_wait = !(iocb->ki_flags & IOCB_NOWAIT) && !(iocb->ki_filp->f_flags & O_NONBLOCK);
	__poll_t want = EPOLLERR | (iov_iter_rw(iter) == READ ? FIFO_DATA : FIFO_SPACE | EPOLLHUP);
	ssize_t ret;

	while (iov_iter_count(iter)) {
		ret = fifo_try(iocb, iter, may_wait);
		if (ret != -EAGAIN || !may_wait)
			return ret;
		if (wait_event_interruptible(fifo->wait, READ_ONCE(fifo->ready) & want))
			return -ERESTARTSYS;
	}
	return 0;
}

static __poll_t fifo_poll(struct file *filp, poll_table *wait)
{
	struct fifo *fifo = filp->private_data;

	poll_wait(filp, &fifo->wait, wait);
	return READ_ONCE(fifo->ready);
}

static long fifo_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	if (cmd == FIFO_CLEAR)
		return fifo_request(filp->private_data, FIFO_CTRL_CLEAR);
	return -ENOTTY;
}

static int fifo_fasync(int fd, struct file *filp, int on)
{
	struct fifo *fifo = filp->private_data;

	return fasync_helper(fd, filp, on, &fifo->async);
}

static int fifo_open(struct inode *inode, struct file *filp)
{
	/* misc_deregister() waits for this function, so the FIFO is there. */
	struct fifo *fifo = container_of(filp->private_data, struct fifo, misc);

	kref_get(&fifo->ref);
	filp->private_data = fifo;
	filp->f_mode |= FMODE_NOWAIT;
	return stream_open(inode, filp);
}

static void fifo_free(struct kref *ref)
{
	kfree(container_of(ref, struct fifo, ref));
}

static int fifo_release(struct inode *inode, struct file *filp)
{
	struct fifo *fifo = filp->private_data;

	fifo_fasync(-1, filp, 0);
	kref_put(&fifo->ref, fifo_free);
	return 0;
}

static const struct file_operations fifo_fops = {
	.owner = THIS_MODULE,
	.open = fifo_open,
	.release = fifo_release,
	.read_iter = fifo_call,
	.write_iter = fifo_call,
	.poll = fifo_poll,
	.unlocked_ioctl = fifo_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.fasync = fifo_fasync,
};

static int fifo_probe(struct virtio_device *vdev)
{
	struct virtqueue_info infos[FIFO_QUEUES] = {
		{ "control", fifo_interrupt }, { "event", fifo_interrupt },
		{ "rx", fifo_interrupt }, { "tx", fifo_interrupt },
	};
	struct fifo *fifo;
	int err;

	fifo = kzalloc_obj(*fifo);
	if (!fifo)
		return -ENOMEM;
	kref_init(&fifo->ref);
	mutex_init(&fifo->turn[0]);
	mutex_init(&fifo->turn[1]);
	mutex_init(&fifo->control);
	spin_lock_init(&fifo->lock);
	init_waitqueue_head(&fifo->wait);
	init_waitqueue_head(&fifo->idle);
	INIT_DELAYED_WORK(&fifo->tick, fifo_tick);
	fifo->vdev = vdev;
	vdev->priv = fifo;
	err = virtio_find_vqs(vdev, FIFO_QUEUES, fifo->vqs, infos, NULL);
	if (err)
		goto put;
	virtio_device_ready(vdev);
	schedule_delayed_work(&fifo->tick, FIFO_TICK);
	err = fifo_request(fifo, FIFO_CTRL_GET_STATE);
	if (err)
		goto stop;
	scoped_guard(fifo, fifo)
		fifo_add(fifo, FIFO_EVENT, &fifo->event, sizeof(fifo->event));
	snprintf(fifo->name, sizeof(fifo->name), "globalfifo%d", vdev->index);
	fifo->misc.minor = MISC_DYNAMIC_MINOR;
	fifo->misc.name = fifo->name;
	fifo->misc.fops = &fifo_fops;
	fifo->misc.parent = &vdev->dev;
	err = misc_register(&fifo->misc);
	if (!err)
		return 0;
stop:
	fifo_stop(vdev);
put:
	kref_put(&fifo->ref, fifo_free);
	return err;
}

static void fifo_remove(struct virtio_device *vdev)
{
	struct fifo *fifo = vdev->priv;

	/* Files may stay open: their calls fail from here on, and the last one frees the memory. */
	fifo_stop(vdev);
	misc_deregister(&fifo->misc);
	kref_put(&fifo->ref, fifo_free);
}

static int fifo_freeze(struct virtio_device *vdev)
{
	return -EBUSY;
}

static const struct virtio_device_id fifo_ids[] = { { VIRTIO_ID_FIFO, VIRTIO_DEV_ANY_ID }, { } };
MODULE_DEVICE_TABLE(virtio, fifo_ids);

static struct virtio_driver fifo_driver = {
	.driver.name = "globalfifo",
	.id_table = fifo_ids,
	.validate = virtio_fifo_validate,
	.probe = fifo_probe,
	.remove = fifo_remove,
	.shutdown = fifo_stop,
	.freeze = pm_sleep_ptr(fifo_freeze),
};
module_virtio_driver(fifo_driver);

MODULE_DESCRIPTION("globalfifo behind an interrupt: the smallest driver of a virtio-fifo device");
MODULE_LICENSE("GPL");
