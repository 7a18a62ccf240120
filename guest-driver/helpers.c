// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shims around macros, inline and variadic functions, so that Rust can call them, and one function
 * that the kernel has without the flag we need. No logic here: whatever decides anything belongs in
 * Rust.
 */
#include <linux/bvec.h>
#include <linux/device.h>
#include <linux/instrumented.h>
#include <linux/kdev_t.h>
#include <linux/pipe_fs_i.h>
#include <linux/preempt.h>
#include <linux/scatterlist.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

#ifdef CONFIG_X86
#include <asm/cpufeature.h>
#include <asm/cpuid/api.h>
#endif

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

int globalfifo_get_config_u32(struct virtio_device *vdev, unsigned int offset, void *buf)
{
	if (!vdev->config->get)
		return -ENXIO;

	/* Not virtio_cread_bytes(), which tries again for as long as the device changes something. */
	vdev->config->get(vdev, offset, buf, sizeof(u32));
	return 0;
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

int globalfifo_add_out_pair(struct virtqueue *vq, void *first, unsigned int first_len, void *second,
			    unsigned int second_len, void *token, gfp_t gfp)
{
	struct scatterlist first_sg, second_sg, *sgs[] = { &first_sg, &second_sg };

	sg_init_one(&first_sg, first, first_len);
	sg_init_one(&second_sg, second, second_len);
	return virtqueue_add_sgs(vq, sgs, 2, 0, token, gfp);
}

int globalfifo_add_out_table(struct virtqueue *vq, void *buf, unsigned int len, struct sg_table *table,
			     void *token, gfp_t gfp)
{
	struct scatterlist sg, *sgs[] = { &sg, table->sgl };

	sg_init_one(&sg, buf, len);
	return virtqueue_add_sgs(vq, sgs, 2, 0, token, gfp);
}

bool globalfifo_is_at_hand(struct iov_iter *from, size_t len)
{
	size_t left;

	pagefault_disable();
	left = fault_in_iov_iter_readable(from, len);
	pagefault_enable();
	return left == 0;
}

ssize_t globalfifo_pin_pages(struct iov_iter *from, struct page ***pages, size_t len,
			     unsigned int count, size_t *offset)
{
	/* Those of the kernel are not pinned, and belong to whoever has them. */
	if (!iov_iter_extract_will_pin(from))
		return -EINVAL;

	return iov_iter_extract_pages(from, pages, len, count, 0, offset);
}

bool globalfifo_runs_in_tcg(void)
{
#ifdef CONFIG_X86
	return boot_cpu_has(X86_FEATURE_HYPERVISOR) && cpuid_base_hypervisor("TCGTCGTCGTCG", 0);
#else
	return false;
#endif
}

/* Not __copy_from_user_inatomic(), which checks again that there is room in the object. */
unsigned long globalfifo_copy_from_user_atomic(void *to, const void *from, unsigned long len)
{
	unsigned long left;

	/* The VFS has checked the address; nor is it to be used in speculation if that failed. */
	if (can_do_masked_user_access())
		from = (const void *)mask_user_address((const void __user *)from);
	else
		barrier_nospec();

	pagefault_disable();
	instrument_copy_from_user_before(to, (const void __user *)from, len);
	left = raw_copy_from_user(to, (const void __user *)from, len);
	instrument_copy_from_user_after(to, (const void __user *)from, len, left);
	pagefault_enable();
	return left;
}

/* What the VFS does for files that have no write(). */
ssize_t globalfifo_write_by_iter(struct file *file, const char *from, size_t len)
{
	struct iov_iter iter;
	struct kiocb kiocb;

	init_sync_kiocb(&kiocb, file);
	iov_iter_ubuf(&iter, ITER_SOURCE, (void __user *)from, len);
	return file->f_op->write_iter(&kiocb, &iter);
}

unsigned long globalfifo_iter_address(const struct iov_iter *iter)
{
	return (unsigned long)iter_iov_addr(iter);
}

int globalfifo_pin_at_hand(unsigned long start, int count, struct page **pages)
{
	struct mm_struct *mm = current->mm;
	long got;

	/* Whoever has it for writing may wait for something. */
	if (!mmap_read_trylock(mm))
		return -EAGAIN;
	got = pin_user_pages(start, count, FOLL_WRITE | FOLL_LONGTERM | FOLL_NOFAULT, pages);
	mmap_read_unlock(mm);
	return got;
}

bool globalfifo_page_is_small_and_anonymous(struct page *page)
{
	return PageAnon(page) && !PageCompound(page);
}

void globalfifo_mark_dirty(struct page *page)
{
	SetPageDirty(page);
}

bool globalfifo_page_is_mapped(struct page *page)
{
	return folio_mapped(page_folio(page));
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

static void release_page(struct splice_pipe_desc *spd, unsigned int i)
{
	put_page(spd->pages[i]);
}

/* copy_splice_read() with IOCB_NOWAIT. Called with the pipe locked and with room in it. */
ssize_t globalfifo_splice_read_nowait(struct file *in, struct pipe_inode_info *pipe, size_t len)
{
	struct page *pages[PIPE_DEF_BUFFERS] = {};
	struct partial_page partial[PIPE_DEF_BUFFERS] = {};
	struct bio_vec bvecs[PIPE_DEF_BUFFERS];
	struct splice_pipe_desc spd = {
		.pages = pages,
		.partial = partial,
		.nr_pages_max = ARRAY_SIZE(pages),
		.ops = &nosteal_pipe_buf_ops,
		.spd_release = release_page,
	};
	unsigned int used = pipe_buf_usage(pipe);
	unsigned int room = pipe->max_usage > used ? pipe->max_usage - used : 0;
	unsigned int wanted, got, i;
	struct iov_iter to;
	struct kiocb kiocb;
	ssize_t ret, left;

	len = min_t(size_t, len, min_t(size_t, room, ARRAY_SIZE(pages)) * PAGE_SIZE);
	wanted = DIV_ROUND_UP(len, PAGE_SIZE);
	if (!wanted)
		return -EAGAIN;

	got = alloc_pages_bulk(GFP_USER, wanted, pages);
	if (!got)
		return -ENOMEM;

	len = min_t(size_t, len, got * PAGE_SIZE);
	for (i = 0; i < got; i++)
		bvec_set_page(&bvecs[i], pages[i], min_t(size_t, PAGE_SIZE, len - i * PAGE_SIZE), 0);

	iov_iter_bvec(&to, ITER_DEST, bvecs, got, len);
	init_sync_kiocb(&kiocb, in);
	kiocb.ki_flags |= IOCB_NOWAIT;
	ret = in->f_op->read_iter(&kiocb, &to);

	for (left = ret; left > 0; left -= PAGE_SIZE)
		partial[spd.nr_pages++].len = min_t(size_t, left, PAGE_SIZE);
	for (i = spd.nr_pages; i < got; i++)
		put_page(pages[i]);

	return ret > 0 ? splice_to_pipe(pipe, &spd) : ret;
}

struct workqueue_struct *globalfifo_alloc_workqueue(const char *name, bool urgent)
{
	return alloc_workqueue("%s", (urgent ? WQ_HIGHPRI : 0) | WQ_UNBOUND, 0, name);
}

bool globalfifo_relax(void)
{
	cpu_relax();
	return need_resched() || signal_pending(current);
}

bool globalfifo_others_want_cpu(void)
{
	return need_resched() || tif_test_bit(TIF_NEED_RESCHED_LAZY);
}

void globalfifo_preempt_disable(void)
{
	preempt_disable();
}

void globalfifo_preempt_enable(void)
{
	preempt_enable();
}
