output "alarm_names" {
  description = "Every alarm."
  value       = sort([for alarm in values(aws_cloudwatch_metric_alarm.this) : alarm.alarm_name])
}
