# `make help` lists the targets. Everything that is built or downloaded goes to target/.

TARGET ?= x86_64-unknown-linux-musl
BINARY := target/$(TARGET)/release/envd
MAX_BYTES := 6000000

.DEFAULT_GOAL := help
.PHONY: help build run test demo bench budget check clean cargo

help: ## list the targets
	@echo "envd: the agent inside a sandbox. Targets:"
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "make run takes AGENT_PORT and CODE_PORT (49983 and 49999), make bench takes BENCH (names, --full)."

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup, then try again" >&2; exit 1; }
	@# rustup does this by itself, unless it was told not to.
	@! command -v rustup >/dev/null || rustup target list --installed 2>/dev/null | grep -qx $(TARGET) || rustup toolchain install

build: cargo ## build the static release binary, print its size, check both
	ENVD_COMMIT=$$(git rev-parse --verify HEAD 2>/dev/null || echo unknown) cargo build --release --target $(TARGET) --bin envd
	@tests/budget/binary $(BINARY) $(MAX_BYTES)

run: build ## build, prepare a Python environment, start the agent on loopback, print snippets to paste
	@tests/harness/serve $(BINARY)

test: build ## run every test: cargo, then faults and the published SDKs in a sandbox (as root)
	@python3 tests/harness/suites.py

demo: build ## a tour with the real SDKs against an agent of its own
	@tests/demo/run $(BINARY)

bench: build ## print the costs of the agent as ratios against floors measured in the same run
	@benches/run $(BINARY) $(BENCH)

budget: build ## check size, idle memory, threads, wake-ups, and that random bytes end nothing
	@tests/budget/binary $(BINARY) $(MAX_BYTES)
	@python3 tests/budget/budget.py $(BINARY)

check: cargo ## formatting, lints as errors, licences and advisories, links in the documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links" cargo doc --workspace --no-deps --quiet
	@python3 tests/harness/links.py
	@tests/harness/deny

clean: ## remove everything that was built or downloaded
	rm -rf target
