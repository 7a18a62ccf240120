// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shims around macros, inline and variadic functions, so that Rust can call them. No logic here:
 * whatever decides anything belongs in Rust.
 */
#include <linux/device.h>
#include <linux/kdev_t.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

#include "bindings.h"

int globalfifo_find_vqs(struct virtio_device *vdev, unsigned int count, struct virtqueue **vqs,
			void (*callback)(struct virtqueue *vq))
{
	struct virtqueue_info *info;
	unsigned int i;
	int err;

	info = kcalloc(count, sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;

	for (i = 0; i < count; i++) {
		info[i].name = i == 0 ? "control" : i == 1 ? "event" : i % 2 ? "tx" : "rx";
		info[i].callback = callback;
	}

	err = virtio_find_vqs(vdev, count, vqs, info, NULL);
	kfree(info);
	return err;
}

void globalfifo_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

void globalfifo_reset_and_del_vqs(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
}

void globalfifo_get_config(struct virtio_device *vdev, unsigned int offset, void *buf,
			   unsigned int len)
{
	virtio_cread_bytes(vdev, offset, buf, len);
}

int globalfifo_add_out(struct virtqueue *vq, void *buf, unsigned int len, void *token, gfp_t gfp)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, len);
	return virtqueue_add_outbuf(vq, &sg, 1, token, gfp);
}

int globalfifo_add_in(struct virtqueue *vq, void *buf, unsigned int len, void *token, gfp_t gfp)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, len);
	return virtqueue_add_inbuf(vq, &sg, 1, token, gfp);
}

int globalfifo_add_request(struct virtqueue *vq, void *out, unsigned int out_len, void *in,
			   unsigned int in_len, void *token, gfp_t gfp)
{
	struct scatterlist out_sg, in_sg, *sgs[] = { &out_sg, &in_sg };

	sg_init_one(&out_sg, out, out_len);
	sg_init_one(&in_sg, in, in_len);
	return virtqueue_add_sgs(vq, sgs, 1, 1, token, gfp);
}

dev_t globalfifo_devt(unsigned int major, unsigned int minor)
{
	return MKDEV(major, minor);
}

struct device *globalfifo_create_node(const struct class *class, struct device *parent, dev_t devt,
				      const char *name)
{
	return device_create(class, parent, devt, NULL, "%s", name);
}

int globalfifo_put_user_int(int value, unsigned long to)
{
	return put_user(value, (int __user *)to);
}

int globalfifo_dup_iter(struct iov_iter *copy, struct iov_iter *from, const void **vector)
{
	if (!user_backed_iter(from))
		return -EINVAL;

	*vector = dup_iter(copy, from, GFP_KERNEL);
	return iter_is_iovec(copy) && !*vector ? -ENOMEM : 0;
}

bool globalfifo_use_mm(struct mm_struct *mm)
{
	if (WARN_ON_ONCE(!(current->flags & PF_KTHREAD) || current->mm))
		return false;

	kthread_use_mm(mm);
	return true;
}

unsigned long globalfifo_file_count(struct file *file)
{
	return file_count(file);
}

struct workqueue_struct *globalfifo_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_HIGHPRI | WQ_UNBOUND, 0, name);
}
