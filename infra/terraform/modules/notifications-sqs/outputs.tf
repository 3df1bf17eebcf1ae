output "topic_arn" {
  description = "Publish here."
  value       = aws_sns_topic.this.arn
}

output "queue_url" {
  description = "Consume here."
  value       = aws_sqs_queue.this.url
}

output "dead_queue_arn" {
  description = "Parked messages."
  value       = aws_sqs_queue.dead.arn
}
