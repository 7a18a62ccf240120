// SPDX-License-Identifier: GPL-2.0-only
/*
 * globalfifo behind an interrupt: the smallest driver of a virtio-fifo device, for its first FIFO.
 * docs/virtio-fifo.md specifies the device; DRV-n is a requirement there.
 *
 * This file is the device's side: queues, positions, credit, and the device's life. It must not
 * know user memory, nor who waits. An interrupt enters at fifo_interrupt(). There is one receive
 * buffer: the device fills it, and gets it back when all of it is read. One message is sent at a
 * time.
 */
#include <linux/module.h>
#include <linux/virtio_config.h>
#include "fifo.h"

/* Period of the check for used buffers whose interrupt is lost (DRV-18). */
#define TICK	HZ

/* Bytes to read. After a reset the device sends again what it does not know to be consumed. */
u64 fifo_level(const struct fifo *fifo)
{
	return fifo->received > fifo->consumed ? fifo->received - fifo->consumed : 0;
}

/* Position up to which the device may be told that bytes are consumed (DRV-7). */
static u64 fifo_known(const struct fifo *fifo)
{
	return min(fifo->consumed, fifo->received);
}

/* Bytes that may be sent (DRV-6). */
u64 fifo_credit(const struct fifo *fifo)
{
	bool loopback = fifo->flags & FIFO_STATE_LOOPBACK;
	u64 limit = loopback ? fifo_known(fifo) + fifo->capacity : fifo->limit;

	return limit > fifo->sent ? limit - fifo->sent : 0;
}

/* End of file (DRV-13). */
bool fifo_ended(const struct fifo *fifo)
{
	return (fifo->flags & (FIFO_STATE_HANGUP | FIFO_STATE_RX_END)) &&
	       fifo->consumed >= fifo->end;
}

/* Error of a call that can transfer nothing; -EAGAIN means that it may wait. */
int fifo_error(const struct fifo *fifo)
{
	if (fifo->life == FIFO_GONE)
		return -ENODEV;
	return fifo->life == FIFO_FAILED ? -EIO : -EAGAIN;
}

/* The device broke the specification. Nothing that it sends is taken any more. */
static int fifo_fail(struct fifo *fifo, const char *why)
{
	if (fifo->life == FIFO_LIVE) {
		dev_err(&fifo->vdev->dev, "failed: %s\n", why);
		fifo->life = FIFO_FAILED;
		wake_up(&fifo->idle);
	}
	return -EIO;
}

/* Gives the device a buffer; true on success. */
static bool fifo_add(struct fifo *fifo, int queue, void *buf, size_t len)
{
	struct virtqueue *vq = fifo->vqs[queue];
	struct scatterlist sg;
	int err;

	sg_init_one(&sg, buf, len);
	if (queue == FIFO_TX)
		err = virtqueue_add_outbuf(vq, &sg, 1, buf, GFP_ATOMIC);
	else
		err = virtqueue_add_inbuf(vq, &sg, 1, buf, GFP_ATOMIC);
	virtqueue_kick(vq);
	return !err || !fifo_fail(fifo, "a broken queue");
}

/* Sends a message with a payload of @len bytes; whether the device has the buffer now. */
bool fifo_send(struct fifo *fifo, struct virtio_fifo_tx_hdr *hdr, size_t len)
{
	hdr->offset = cpu_to_le64(fifo->sent);
	hdr->rx_consumed = cpu_to_le64(fifo_known(fifo));
	fifo->sent += len;
	fifo->reported = fifo_known(fifo);
	return fifo_add(fifo, FIFO_TX, hdr, sizeof(*hdr) + len);
}

/* Notes that bytes were read. The device gets an empty buffer back, and is told by DRV-8. */
void fifo_consume(struct fifo *fifo, size_t count)
{
	u64 unreported;

	fifo->consumed += count;
	unreported = fifo_known(fifo) - fifo->reported;
	if (fifo->life == FIFO_LIVE && !fifo->rx_busy && !fifo_level(fifo)) {
		fifo->posts++;
		fifo->rx_busy = fifo_add(fifo, FIFO_RX, &fifo->rx, sizeof(fifo->rx));
	}
	if (unreported && !fifo->ack_busy &&
	    (fifo->life != FIFO_LIVE || !fifo_level(fifo) || unreported * 2 >= fifo->capacity))
		fifo->ack_busy = fifo_send(fifo, &fifo->ack, 0);
}

/* Drops all bytes below @pos, also those that have not come yet (DRV-10, DRV-15). */
static void fifo_discard(struct fifo *fifo, u64 pos)
{
	fifo->cleared = max(fifo->cleared, pos);
	fifo->received = max(fifo->received, pos);
	fifo->consumed = max(fifo->consumed, pos);
	fifo->reported = max(fifo->reported, pos);
}

/* Takes the message in @rx; @len is what the device says to have written (DRV-11). */
static int fifo_accept(struct fifo *fifo, size_t len)
{
	struct virtio_fifo_rx_hdr hdr = fifo->rx.hdr;
	u64 pos = le64_to_cpu(hdr.offset), end = pos + len - sizeof(hdr);
	u64 floor = le64_to_cpu(hdr.rx_floor), limit = le64_to_cpu(hdr.tx_limit);

	if (len <= sizeof(hdr) || len > sizeof(fifo->rx) || pos >= FIFO_MAX_POSITION || floor > pos)
		return fifo_fail(fifo, "an impossible message");
	if (pos < fifo->received)	/* Under way when the FIFO was cleared? */
		return end <= fifo->cleared ? 0 : fifo_fail(fifo, "bytes that it had sent before");
	fifo_discard(fifo, pos > fifo->received ? pos : floor);
	if (end > fifo->consumed + fifo->capacity || limit > fifo->sent + fifo->capacity ||
	    ((fifo->flags & FIFO_STATE_LOOPBACK) && end > fifo->sent))
		return fifo_fail(fifo, "more than the FIFO holds");
	fifo->start = pos;
	fifo->received = end;
	fifo->limit = max(fifo->limit, limit);
	fifo->edges |= fifo_level(fifo) ? FIFO_DATA : 0;
	return 0;
}

/* Takes a state that the device told (DRV-12). Its flags count in events, which have an order. */
static int fifo_learn(struct fifo *fifo, const struct virtio_fifo_state *state, bool is_event)
{
	u64 floor = le64_to_cpu(state->rx_floor), end = le64_to_cpu(state->rx_end);
	u64 accepted = le64_to_cpu(state->tx_accepted), limit = le64_to_cpu(state->tx_limit);

	if (le32_to_cpu(state->capacity) != fifo->capacity || floor > end || accepted > limit ||
	    max(end - floor, limit - accepted) > fifo->capacity || accepted > fifo->sent ||
	    max(end, limit) >= FIFO_MAX_POSITION)
		return fifo_fail(fifo, "an impossible state");
	fifo_discard(fifo, floor);
	fifo->limit = max(fifo->limit, limit);
	if (is_event) {
		fifo->flags = le32_to_cpu(state->flags);
		fifo->end = end;
	}
	return fifo->flags & FIFO_STATE_ERROR ? fifo_fail(fifo, "STATE_ERROR") : 0;
}

/* Takes what the device has used: at most one buffer of each kind (DRV-17). */
static void fifo_serve(struct fifo *fifo)
{
	struct virtio_fifo_state event;
	unsigned int len;
	void *buf;

	guard(fifo)(fifo);
	if (!fifo->vqs[FIFO_CONTROL])
		return;
	if (virtqueue_get_buf(fifo->vqs[FIFO_CONTROL], &fifo->answer_len))
		complete(&fifo->answered);
	while ((buf = virtqueue_get_buf(fifo->vqs[FIFO_TX], &len))) {
		*(buf == &fifo->ack ? &fifo->ack_busy : &fifo->tx_busy) = false;
		/* Accepted, so it has arrived, if only at the device: @rx has unread bytes. */
		if (buf == &fifo->tx && !fifo->rx_busy && fifo->sent > fifo->received &&
		    (fifo->flags & FIFO_STATE_LOOPBACK))
			fifo->edges |= FIFO_DATA;
		wake_up(&fifo->idle);
	}
	if (fifo->life == FIFO_LIVE && virtqueue_get_buf(fifo->vqs[FIFO_RX], &len)) {
		fifo->rx_busy = false;
		fifo_accept(fifo, len);
	}
	if (fifo->life == FIFO_LIVE && virtqueue_get_buf(fifo->vqs[FIFO_EVENT], &len)) {
		event = fifo->event;
		if (len < sizeof(event))
			fifo_fail(fifo, "an impossible event");
		else if (!event.fifo)
			fifo_learn(fifo, &event, true);
		fifo_add(fifo, FIFO_EVENT, &fifo->event, sizeof(fifo->event));
	}
	if (fifo->life != FIFO_FAILED)
		fifo_consume(fifo, 0);
}

static void fifo_interrupt(struct virtqueue *vq)
{
	fifo_serve(vq->vdev->priv);
}

static void fifo_tick(struct work_struct *work)
{
	struct fifo *fifo = container_of(to_delayed_work(work), struct fifo, tick);

	fifo_serve(fifo);
	schedule_delayed_work(&fifo->tick, TICK);
}

/* Makes a request of the device, and waits for the answer: fifo->resp. */
static int fifo_request(struct fifo *fifo, u32 type)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	unsigned long left = 0;
	int err;

	sg_init_one(&out, &fifo->req, sizeof(fifo->req));
	sg_init_one(&in, &fifo->resp, sizeof(fifo->resp));
	reinit_completion(&fifo->answered);
	scoped_guard(fifo, fifo) {
		fifo->req.type = cpu_to_le32(type);
		fifo->req.tx_sent = cpu_to_le64(fifo->sent);
		err = virtqueue_add_sgs(fifo->vqs[FIFO_CONTROL], sgs, 1, 1, fifo, GFP_ATOMIC);
		virtqueue_kick(fifo->vqs[FIFO_CONTROL]);
	}
	if (!err)
		left = wait_for_completion_timeout(&fifo->answered, FIFO_PATIENCE);
	if (left && fifo->answer_len >= sizeof(fifo->resp) && !fifo->resp.status)
		return 0;
	guard(fifo)(fifo);
	return fifo_fail(fifo, "no answer to a request");
}

/* FIFO_CLEAR. -EAGAIN while the device is being reset. */
int fifo_clear(struct fifo *fifo)
{
	int err;

	guard(mutex)(&fifo->control);
	err = fifo->life == FIFO_LIVE ? fifo_request(fifo, FIFO_CTRL_CLEAR) : fifo_error(fifo);
	if (err)
		return err;
	guard(fifo)(fifo);
	err = fifo_learn(fifo, &fifo->resp.state, false);
	fifo_consume(fifo, 0);
	return err;
}

/* Out of service: the device takes what was written, and learns what was read (DRV-8, DRV-9). */
static void fifo_stop(struct fifo *fifo, enum fifo_life life)
{
	struct virtio_device *vdev = fifo->vdev;

	scoped_guard(mutex, &fifo->control) {
		guard(fifo)(fifo);
		if (fifo->life == FIFO_LIVE || life == FIFO_GONE)
			fifo->life = life;
		if (fifo->life != FIFO_FAILED && fifo->vqs[FIFO_TX])
			fifo_consume(fifo, 0);
		wake_up(&fifo->idle);
	}
	wait_event_timeout(fifo->idle, fifo->life == FIFO_FAILED ||
			   (!READ_ONCE(fifo->tx_busy) && !READ_ONCE(fifo->ack_busy)),
			   FIFO_PATIENCE);
	cancel_delayed_work_sync(&fifo->tick);
	virtio_reset_device(vdev);
	while (fifo->vqs[FIFO_TX] && virtqueue_detach_unused_buf(fifo->vqs[FIFO_TX]))
		;
	scoped_guard(fifo, fifo)
		memset(fifo->vqs, 0, sizeof(fifo->vqs));
	vdev->config->del_vqs(vdev);
}

/* Into service, at the positions where the device stands (DRV-4). */
static int fifo_start(struct fifo *fifo)
{
	struct virtqueue_info infos[FIFO_QUEUES] = {
		{ "control", fifo_interrupt }, { "event", fifo_interrupt },
		{ "rx", fifo_interrupt }, { "tx", fifo_interrupt },
	};
	const struct virtio_fifo_state *state = &fifo->resp.state;
	struct virtqueue *vqs[FIFO_QUEUES];
	int err;

	err = virtio_find_vqs(fifo->vdev, FIFO_QUEUES, vqs, infos, NULL);
	if (err)
		return err;
	scoped_guard(fifo, fifo) {
		memcpy(fifo->vqs, vqs, sizeof(vqs));
		fifo->rx_busy = false;
		fifo->tx_busy = false;
		fifo->ack_busy = false;
		/* Nothing to report before the device has told where it stands (DRV-4). */
		fifo->received = fifo->reported;
	}
	virtio_device_ready(fifo->vdev);
	schedule_delayed_work(&fifo->tick, TICK);
	err = fifo_request(fifo, FIFO_CTRL_GET_STATE);
	if (err)
		return err;

	guard(fifo)(fifo);
	if (!fifo->capacity) {
		fifo->capacity = clamp(le32_to_cpu(state->capacity), 1, FIFO_MAX_CAPACITY);
		fifo->sent = le64_to_cpu(state->tx_accepted);
	}
	if (fifo->life != FIFO_SUSPENDED)
		return 0;
	fifo->life = FIFO_LIVE;
	fifo->received = le64_to_cpu(state->rx_floor);
	fifo->reported = fifo->received;
	err = fifo_learn(fifo, state, true);
	if (le64_to_cpu(state->tx_accepted) != fifo->sent)
		err = fifo_fail(fifo, "another position after its reset");
	if (err)
		return err;
	fifo_consume(fifo, 0);
	fifo_add(fifo, FIFO_EVENT, &fifo->event, sizeof(fifo->event));
	wake_up(&fifo->idle);
	return 0;
}

/* Whether this is a device for this driver, before its features are negotiated. */
static int fifo_validate(struct virtio_device *vdev)
{
	u32 magic, version, count;

	if (!vdev->config->get)
		return -ENODEV;
	virtio_cread_le(vdev, struct virtio_fifo_config, magic, &magic);
	if (magic != FIFO_MAGIC)	/* Another kind of device, for another driver (DRV-19). */
		return -ENODEV;
	virtio_cread_le(vdev, struct virtio_fifo_config, version, &version);
	if (version != FIFO_VERSION) {	/* DRV-20 */
		dev_err(&vdev->dev, "not used: version %u of the device's layout, not %u\n",
			version, FIFO_VERSION);
		return -ENODEV;
	}
	virtio_cread_le(vdev, struct virtio_fifo_config, num_fifos, &count);
	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1) || !count || count > FIFO_MAX_FIFOS)
		return -ENODEV;
	return 0;
}

static int fifo_probe(struct virtio_device *vdev)
{
	struct fifo *fifo;
	int err;

	fifo = kzalloc_obj(*fifo);
	if (!fifo)
		return -ENOMEM;
	kref_init(&fifo->ref);
	mutex_init(&fifo->reading);
	mutex_init(&fifo->writing);
	mutex_init(&fifo->control);
	spin_lock_init(&fifo->lock);
	init_waitqueue_head(&fifo->wait);
	init_waitqueue_head(&fifo->idle);
	init_completion(&fifo->answered);
	INIT_DELAYED_WORK(&fifo->tick, fifo_tick);
	fifo->vdev = vdev;
	vdev->priv = fifo;
	err = fifo_start(fifo);
	if (err)
		goto stop;

	snprintf(fifo->name, sizeof(fifo->name), "globalfifo%d", vdev->index);
	fifo->misc.minor = MISC_DYNAMIC_MINOR;
	fifo->misc.name = fifo->name;
	fifo->misc.fops = &fifo_fops;
	fifo->misc.parent = &vdev->dev;
	err = misc_register(&fifo->misc);
	if (!err)
		return 0;
stop:
	fifo_stop(fifo, FIFO_GONE);
	vdev->priv = NULL;
	kref_put(&fifo->ref, fifo_free);
	return err;
}

static void fifo_remove(struct virtio_device *vdev)
{
	struct fifo *fifo = vdev->priv;

	/* Files may stay open: their calls fail from here on, and the last one frees the memory. */
	fifo_stop(fifo, FIFO_GONE);
	misc_deregister(&fifo->misc);
	vdev->priv = NULL;
	kref_put(&fifo->ref, fifo_free);
}

static void fifo_shutdown(struct virtio_device *vdev)
{
	fifo_stop(vdev->priv, FIFO_GONE);
}

/* Suspend, hibernation, reset of the PCI function: calls wait, and no byte is lost. */
static int fifo_freeze(struct virtio_device *vdev)
{
	fifo_stop(vdev->priv, FIFO_SUSPENDED);
	return 0;
}

static int fifo_restore(struct virtio_device *vdev)
{
	int err = fifo_start(vdev->priv);

	if (err)
		fifo_stop(vdev->priv, FIFO_GONE);
	return err;
}

static const struct virtio_device_id fifo_ids[] = {
	{ VIRTIO_ID_FIFO, VIRTIO_DEV_ANY_ID },
	{ }
};
MODULE_DEVICE_TABLE(virtio, fifo_ids);

static struct virtio_driver fifo_driver = {
	.driver.name = "globalfifo",
	.id_table = fifo_ids,
	.validate = fifo_validate,
	.probe = fifo_probe,
	.remove = fifo_remove,
	.shutdown = fifo_shutdown,
	.freeze = pm_sleep_ptr(fifo_freeze),
	.restore = pm_sleep_ptr(fifo_restore),
	.reset_prepare = fifo_freeze,
	.reset_done = fifo_restore,
};
module_virtio_driver(fifo_driver);

MODULE_DESCRIPTION("globalfifo behind an interrupt: the smallest driver of a virtio-fifo device");
MODULE_LICENSE("GPL");
