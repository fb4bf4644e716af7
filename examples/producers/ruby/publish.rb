# frozen_string_literal: true

# Publishes one delta straight to the exchange: ruby publish.rb ROOM DELTA [MESSAGE_ID]

require 'bunny'
require 'securerandom'

URL = ENV.fetch('AMQP_URL', 'amqp://guest:guest@127.0.0.1:5672/%2f')
EXCHANGE = "#{ENV.fetch('AMQP_PREFIX', 'roomwire')}.in"
ATTEMPTS = 5

Unroutable = Class.new(StandardError)

# Returns once the broker has the delta on a majority of its nodes.
def publish(room, delta, message_id)
  connection = Bunny.new(URL, automatically_recover: false, log_level: :fatal)
  connection.start
  channel = connection.create_channel
  channel.confirm_select
  # Passive: the exchange is Roomwire's to declare.
  exchange = channel.topic(EXCHANGE, passive: true)
  returned = false
  exchange.on_return { returned = true }
  # Mandatory: a delta that no queue takes would be confirmed too.
  exchange.publish(delta, routing_key: room, message_id: message_id, persistent: true,
                          content_type: 'application/json', mandatory: true)
  # A channel that the broker closes leaves the wait without an end of its own.
  raise 'the broker did not take it' unless Timeout.timeout(10) { channel.wait_for_confirms }
  raise Unroutable, "nothing is bound to #{EXCHANGE}: is Roomwire set up?" if returned
ensure
  connection&.close if connection&.open?
end

room, delta, id = ARGV
abort 'usage: ruby publish.rb ROOM DELTA [MESSAGE_ID]' unless delta
# In a backend: the id of the row that the delta tells of, so that a retry after a crash has the
# same one.
id ||= SecureRandom.uuid

(1..ATTEMPTS).each do |attempt|
  publish(room, delta, id)
  puts "confirmed #{id}"
  exit
rescue Unroutable => e
  abort e.message
rescue Bunny::NotFound
  abort "there is no exchange #{EXCHANGE}: is Roomwire set up?"
rescue Bunny::Exception, SystemCallError, Timeout::Error, RuntimeError => e
  warn "attempt #{attempt}: #{e.message}"
  sleep attempt
end
abort 'not confirmed; a retry with the same message id is safe'
