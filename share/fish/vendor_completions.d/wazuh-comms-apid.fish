# Completion for fish. Made by scripts/make-docs.

function __wazuh_comms_apid_at --description 'Does the line name this command?'
    set --local command ''
    set --local skip no
    for word in (commandline --tokenize --cut-at-cursor --current-process)[2..]
        if test $skip = yes
            set skip no
        else if contains -- $word --config
            set skip yes
        else if not string match --quiet -- '-*' $word
            set --local next (string trim -- "$command $word")
            contains -- "$next" ''; and set command $next
        end
    end
    test "$command" = "$argv[1]"
end

complete --command wazuh-comms-apid --no-files
complete --command wazuh-comms-apid --condition "__wazuh_comms_apid_at ''" --short-option h --long-option help --description 'show this help message and exit'
complete --command wazuh-comms-apid --condition "__wazuh_comms_apid_at ''" --long-option config --require-parameter --force-files --description 'the configuration (default: $WAZUH_COMMS_CONFIG, else /etc/wazuh-server/wazuh-server.yml)'
complete --command wazuh-comms-apid --condition "__wazuh_comms_apid_at ''" --long-option check --description 'only check the configuration, keys and certificates included'
complete --command wazuh-comms-apid --condition "__wazuh_comms_apid_at ''" --long-option version --description 'print the version'
