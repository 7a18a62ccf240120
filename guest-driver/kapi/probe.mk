# SPDX-License-Identifier: GPL-2.0-only
#
# For a module's Kbuild: asks the compiler what this kernel's crate has, as series differ, and gives
# the answers to the module as cfgs. The including file has, for its main object:
#
#   RUSTFLAGS_main.o += $(kapi_rustflags)
#   $(obj)/main.o: $(kapi_answers)

kapi_answers := $(obj)/kernel_has.args
kapi_rustflags := @$(kapi_answers)
kapi_questions := $(shell sed -n 's/^.\[cfg(\(KERNEL_HAS_[A-Z_]*\))\]$$/\1/p' $(src)/kapi/probe.rs)

quiet_cmd_kapi_probe = PROBE   $@
      cmd_kapi_probe = \
	for question in $(kapi_questions); do \
		if $(rust_common_cmd) --emit=metadata=$(obj)/.kapi_probe.rmeta --cfg $$question $< \
				>/dev/null 2>&1; then \
			printf '%s\n' --cfg $$question; \
		fi; \
	done >$@

$(obj)/kernel_has.args: $(src)/kapi/probe.rs FORCE
	$(call if_changed,kapi_probe)

targets += kernel_has.args
clean-files += kernel_has.args .kapi_probe.rmeta
