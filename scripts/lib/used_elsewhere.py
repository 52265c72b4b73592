# ruff: noqa: B018, F821
"""What vulture would call unused, but others use by its name. Read by vulture, never run."""

# --- attributes and methods that a library uses: tarfile, ssl, hypercorn, apsw
_.mtime
_.linkname
_.num_tickets
_.MAX_RECV
_.include_server_header
_.keep_alive_max_requests
_.accesslog
_.errorlog
_.xOpen

# --- methods and parameters of a form that others fix: hypercorn's task group and application, trio's abort function
_.spawn_app
_.spawn
func
sync_spawn
call_soon
raise_cancel

# --- ... __exit__, socket.getsockopt
exc_type
trace
optname
buflen

# --- fields of a vulnerability scan: an agent's words, checked by their type and passed on as they came
_.architecture
_.item_id
_.multiarch
_.scan_time
_.vendor
_.codename
_.major_version
_.minor_version
_.kernel_release
_.kernel_name
_.kernel_version
_.hotfixes

# --- fields of transport's AgentStatus, for the programs that ask
_.last_keepalive
_.last_ack
_.msg_count
_.msg_sent
_.msg_buffer
_.buffer_enabled

# --- orders of transport's servers, which the tests give by name to either kind
_.reload_agents
_.reconnect_agents
_.agent_groups
_.assign_groups

# --- tests: programs called by name, fields that are decoded, or read by their name
_.os_name
_.payload_files
orderly
early_twice
worker_killed
killed

# --- views of the operators' application, and hypercorn's settings
healthz
openapi
_.alpn_protocols
_.keep_alive_timeout
_.graceful_timeout
_.ca_certs
_.certfile
_.keyfile

# --- of trio's tasks, cancel scopes and runs, which trio reads
_._next_send
_._abort_func
_.custom_sleep_data
_._cancel_points
_.abandoned_by_misnesting
_.init_task
